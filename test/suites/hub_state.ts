/**
 * What `HubState` must do over any store. `reopen` gives the same store after a kill: nothing was closed in an orderly way before.
 */
import { describe } from "vitest";
import { type HubUnderTest, useHub } from "./hub_state/fixture.ts";
import { testJoining } from "./hub_state/joining.ts";
import { testKeeping } from "./hub_state/keeping.ts";
import { testMembers } from "./hub_state/members.ts";
import { testObjects } from "./hub_state/objects.ts";
import { testSending } from "./hub_state/sending.ts";

export function hubStateSuite(subject: HubUnderTest): void {
  describe(`HubState over ${subject.name}`, () => {
    useHub(subject);
    testJoining();
    testMembers();
    testKeeping();
    testObjects();
    testSending();
  });
}
