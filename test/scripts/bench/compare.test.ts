/** What the comparison makes of its samples: medians, ratios, goals, the table and the chart. Measuring itself needs namespaces. */
import { describe, expect, it } from "vitest";
import { chartOf } from "../../../scripts/bench/compare/chart.ts";
import { contenders } from "../../../scripts/bench/compare/contenders.ts";
import { best, judge, type Judged, type Result } from "../../../scripts/bench/compare/goals.ts";
import { median, medianOf, metricsOf, quantile, type Round } from "../../../scripts/bench/compare/samples.ts";
import { captionOf, goalsOf, panelsOf, reportOf, type Run } from "../../../scripts/bench/compare/report.ts";
import { goalLines, markdownOf, type Row, tableOf } from "../../../scripts/bench/compare/table.ts";

function row(id: string, kind: Result["kind"], rounds: readonly Round[], isNewest = true): Row {
  return { id, title: id.toUpperCase(), kind, isNewest, rounds };
}

function tcp1(up: number, down = up): Round {
  return { "tcp1.up.gbps": up, "tcp1.down.gbps": down };
}

function found(judged: readonly Judged[], what: string): Judged {
  return judged.find((goal) => goal.what === what)!;
}

describe("samples", () => {
  it("have the middle one as median, or the mean of two", () => {
    expect(median([])).toBeUndefined();
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 3, 2])).toBe(2.5);
  });

  it("have quantiles that are samples", () => {
    const of = Array.from({ length: 100 }, (_, i) => 100 - i);
    expect([quantile(of, 0.99), quantile(of, 0), quantile(of, 1)]).toEqual([99, 1, 100]);
    expect(quantile([], 0.5)).toBeUndefined();
  });

  it("pool keys and rounds, and leave out what was not measured", () => {
    expect(medianOf([tcp1(1, 2), { "tcp1.up.gbps": 9 }], "tcp1.up.gbps", "tcp1.down.gbps")).toBe(2);
    expect(medianOf([{}], "ping.us")).toBeUndefined();
  });
});

describe("goals", () => {
  it("compare with the fastest peer of the newest, whatever Debian's do", () => {
    const judged = judge([
      row("edgemesh", "edgemesh", [tcp1(5)]),
      row("slow", "peer", [tcp1(1)]),
      row("fast", "peer", [tcp1(3.9, 4.1)]),
      row("wireguard-go-debian", "peer", [tcp1(20)], false),
    ]);
    expect(found(judged, "TCP, one stream: Geneve in WireGuard")).toMatchObject({
      isReached: true,
      found: "1.25 x fast: 5.00 against 4.00 Gbit/s",
    });
    expect(found(judged, "TCP, one stream: beside Debian's wireguard-go")).toMatchObject({ isReached: false });
  });

  it("take the median over rounds, so that one bad round decides nothing", () => {
    const judged = judge([
      row("edgemesh", "edgemesh", [tcp1(5), tcp1(5), tcp1(0.1)]),
      row("peer", "peer", [tcp1(4), tcp1(4), tcp1(40)]),
    ]);
    expect(found(judged, "TCP, one stream: Geneve in WireGuard").isReached).toBe(true);
  });

  it("want less of time, and are reached at the limit", () => {
    const peer = row("peer", "peer", [{ ...tcp1(1), "tcp1.cpu": 10, "ping.us": 100 }]);
    const at = (cpu: number, ping: number) =>
      judge([row("edgemesh", "edgemesh", [{ ...tcp1(1), "tcp1.cpu": cpu, "ping.us": ping }]), peer]);
    expect(found(at(8, 100), "CPU seconds per GB").isReached).toBe(true);
    expect(found(at(8.1, 100), "CPU seconds per GB").isReached).toBe(false);
    expect(found(at(8, 100), "round trip").isReached).toBe(true);
    expect(found(at(8, 101), "round trip").isReached).toBe(false);
  });

  it("judge memory by the worst round", () => {
    const judged = judge([row("edgemesh", "edgemesh", [{ "load.anonymous": 30 }, { "load.anonymous": 41 }])]);
    expect(found(judged, "memory under load, anonymous")).toMatchObject({ isReached: false, found: "41.0 MB" });
  });

  it("compare with each of Debian's by name", () => {
    const judged = judge([
      row("edgemesh", "edgemesh", [tcp1(5)]),
      row("wireguard-go-debian", "peer", [tcp1(0.5)], false),
      row("nebula-debian", "peer", [tcp1(2)], false),
    ]);
    expect(found(judged, "TCP, one stream: beside Debian's wireguard-go")).toMatchObject({ isReached: true });
    expect(found(judged, "TCP, one stream: beside Debian's nebula")).toMatchObject({ isReached: false });
  });

  it("are not reached in a small cgroup by one that was killed there, however fast it was before", () => {
    const lived = { "tcp1.up.gbps": 4, "limited.gbps": 4 };
    const at = (...rounds: Round[]) =>
      found(judge([row("edgemesh", "edgemesh", rounds)]), "full speed in a cgroup of 96 MB");
    expect(at(lived, lived)).toMatchObject({ isReached: true });
    expect(at({ ...lived, "limited.gbps": 3.5 })).toMatchObject({ isReached: false });
    expect(at(lived, { "tcp1.up.gbps": 4, "limited.killed": 1 })).toMatchObject({
      isReached: false,
      found: "killed 1/2",
    });
  });

  it("say what was not measured instead of calling it reached or not", () => {
    const judged = judge([row("edgemesh", "edgemesh", [tcp1(5)])]);
    for (const goal of judged) expect(goal).toMatchObject({ isReached: undefined, found: "not measured" });
    expect(goalLines(judged).split("\n")[0]).toMatch(/ {2}\? {2}not measured$/);
  });

  it("find nobody best where nobody was measured", () => {
    expect(best([row("a", "peer", [{}])], "more", "ping.us")).toBeUndefined();
  });
});

describe("the table", () => {
  it("has equal columns, only those with figures, and ratios to the best peer below", () => {
    const rows = [
      row("edgemesh", "edgemesh", [{ ...tcp1(6), "idle.anonymous": 19.5 }]),
      row("quick", "peer", [{ ...tcp1(3), "idle.anonymous": 2 }]),
      row("slow", "peer", [tcp1(1.5)]),
    ];
    expect(tableOf(rows, metricsOf([64])).split("\n")).toEqual([
      "          TCP 1 up  TCP 1 down     idle",
      "            Gbit/s      Gbit/s  anon MB",
      "EDGEMESH      6.00        6.00     19.5",
      "            2.00 x      2.00 x",
      "QUICK         3.00        3.00      2.0",
      "            1.00 x      1.00 x",
      "SLOW          1.50        1.50        -",
      "            0.50 x      0.50 x",
    ]);
    expect(markdownOf(rows.slice(0, 1), metricsOf([64])).split("\n").slice(1)).toEqual([
      expect.stringMatching(/^\| --- \|( ---: \|)+$/),
      expect.stringMatching(/^\| [A-Z]+ \|( [-\d.]+ \|)+$/),
    ]);
  });
});

describe("a program that was killed", () => {
  const limited = metricsOf([]).filter(({ key }) => key.startsWith("limited"));
  const cells = (rounds: readonly Round[]) => tableOf([row("x", "peer", rounds)], limited).split("\n")[2];

  it("has that for a figure, and how often", () => {
    expect(cells([{ "limited.killed": 1 }, { "limited.killed": 1 }])).toBe("X    killed");
    expect(cells([{ "limited.killed": 1 }, { "limited.gbps": 2 }])).toBe("X  killed 1/2");
    expect(cells([{ "limited.gbps": 2 }, {}])).toBe("X      2.00");
  });
});

describe("the chart", () => {
  it("draws bars in proportion, escapes texts, and leaves out panels without figures", () => {
    const svg = chartOf(
      [
        { title: "A & B", unit: "<x>", digits: 1, bars: [bar("one", 10, true), bar("two", 5, false)] },
        { title: "nothing", unit: "", digits: 0, bars: [] },
      ],
      ['measured on "this"', "by <us>"],
    );
    const widths = [...svg.matchAll(/<rect class="(.)"[^>]* width="(\d+)"/g)].map((
      [, kind, width],
    ) => [kind, Number(width)]);
    expect(widths).toEqual([["o", 446], ["p", 223]]);
    expect(svg).toContain("A &amp; B");
    const heightOf = (pattern: RegExp) => Number(pattern.exec(svg)![1]);
    const [first, second] = [heightOf(/y="(\d+)">measured on &quot;this&quot;</), heightOf(/y="(\d+)">by &lt;us&gt;</)];
    expect(second).toBeGreaterThan(first + 12);
    expect(heightOf(/ height="(\d+)" role/)).toBeGreaterThan(second);
    expect(svg).not.toContain(">nothing<");
    expect(svg).not.toMatch(/NaN|undefined/);
  });

  function bar(title: string, value: number, isOurs: boolean) {
    return { title, value, isOurs };
  }
});

describe("the report", () => {
  const run: Run = {
    date: "2026-11-25T00:00:00.000Z",
    machine: { cpu: "a CPU", cores: 2, memoryMegabytes: 1024, kernel: "6.1", loadBefore: 0 },
    edgemesh: { version: "edgemesh 0.1.0", form: "binary" },
    tools: {},
    settings: { rounds: 1, seconds: 4, warmSeconds: 4, measures: ["tcp1"], udpSizes: [64] },
    contenders: [{ ...row("edgemesh", "edgemesh", [tcp1(5)]), isMain: true, version: "0.1.0", mtuBytes: 1355 }],
    left: [{ id: "nebula", why: "not installed" }],
    faults: ["edgemesh, round 1, UDP 64: iperf3: broken pipe"],
  };

  it("names the machine, who was left out and what failed", () => {
    const text = reportOf(run);
    expect(text).toContain("a CPU, 2 cores, Linux 6.1, 2026-11-25, edgemesh 0.1.0\n");
    expect(text).toContain("\nmedians of 1 round, 4 s each; both ends on this machine\n");
    expect(text).toContain("left out: nebula: not installed");
    expect(text).toContain("fault: edgemesh, round 1, UDP 64: iperf3: broken pipe");
  });

  it("says when others were at work", () => {
    const [contender] = run.contenders;
    const at = (part: number) =>
      reportOf({ ...run, contenders: [{ ...contender!, rounds: [{ ...tcp1(5), "tcp1.up.foreign": part }] }] });
    expect(at(0.4)).toContain("DISTURBED: others used 40 % of the machine");
    expect(at(0.05)).not.toContain("DISTURBED");
  });

  it("says when not everybody had as many rounds", () => {
    const [contender] = run.contenders;
    const more = { ...contender!, id: "more", rounds: [tcp1(1), tcp1(2), tcp1(3)] };
    expect(captionOf({ ...run, contenders: [contender!, more] })[1]).toMatch(/^medians of 1 to 3 rounds, /);
  });

  it("charts every peer and the main modes of edgemesh, best first", () => {
    const of = (id: string, kind: Result["kind"], isMain: boolean, gbps: number) => ({
      ...{ ...row(id, kind, [tcp1(gbps)]), isMain, version: "", mtuBytes: 1420 },
    });
    const [first, ...others] = panelsOf([
      of("veth", "bare", true, 20),
      of("edgemesh", "edgemesh", true, 4),
      of("edgemesh-vxlan", "edgemesh", false, 5),
      of("wireguard-go", "peer", true, 3),
      of("nebula", "peer", false, 6),
    ]);
    expect(first!.bars.map(({ title, value, isOurs }) => [title, value, isOurs])).toEqual([
      ["NEBULA", 6, false],
      ["EDGEMESH", 4, true],
      ["WIREGUARD-GO", 3, false],
    ]);
    for (const { bars } of others) expect(bars).toEqual([]);
  });

  it("calls memory flat by what it does after its first fifth", () => {
    const samples = (grown: number) =>
      Array.from({ length: 50 }, (_, i) => ({
        second: i,
        anonymous: i < 5 ? 90 : 30 + (i < 40 ? 0 : grown),
        resident: 60,
      }));
    const flat = (grown: number) =>
      found(
        goalsOf({ ...run, flat: { id: "edgemesh", minutes: 10, gbps: 3, samples: samples(grown) } }),
        "memory flat over 10 minutes",
      );
    expect(flat(0)).toMatchObject({ isReached: true });
    expect(flat(2.5)).toMatchObject({ isReached: false });
    expect(flat(2.5).found).toMatch(/^2.5 MB more; at most 90.0 MB anonymous/);
  });

  it("holds memory over a long stream, without its start, to the same limits", () => {
    const settled = (id: string, anonymous: number) =>
      found(
        goalsOf({
          ...run,
          flat: {
            ...{ id, minutes: 10, gbps: 3 },
            samples: [90, anonymous, 31, 31, 31].map((anonymous, second) => ({ second, anonymous, resident: 60 })),
          },
        }),
        "memory under load, anonymous",
      );
    expect(settled("edgemesh", 39)).toMatchObject({ isReached: true, found: "39.0 MB" });
    expect(settled("edgemesh", 41)).toMatchObject({ isReached: false, found: "41.0 MB" });
    expect(settled("edgemesh-native", 41)).toMatchObject({ isReached: undefined });
  });
});

describe("contenders", () => {
  it("are all named once; a peer that is not here says why", () => {
    const all = contenders(
      "wireguard-go\t/cache/wireguard-go\tv1 (go1.26)\nnebula\t-\tno go here to build it\n",
      "0.1.0",
    );
    expect(new Set(all.map(({ id }) => id)).size).toBe(all.length);
    const of = (id: string) => all.find((contender) => contender.id === id);
    expect(of("wireguard-go")).toMatchObject({ version: "v1 (go1.26)", kind: "peer", isNewest: true });
    expect(of("wireguard-go")).not.toHaveProperty("missing");
    expect(of("nebula")).toMatchObject({ missing: "no go here to build it" });
    expect(of("boringtun")).toMatchObject({ missing: "not looked for" });
  });
});
