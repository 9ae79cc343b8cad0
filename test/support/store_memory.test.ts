import { MemoryStore } from "./store_memory.ts";
import { storeSuite } from "../suites/store.ts";

storeSuite({
  name: "MemoryStore",
  open: async (clock, historyRevisions) => new MemoryStore({ nowMs: () => clock.nowMs, historyRevisions }),
});
