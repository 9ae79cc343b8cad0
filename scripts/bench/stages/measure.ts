/** How a stage of `micro.ts` has something measured: `work` does `count` operations and gives a number that depends on them. */
export type Measure = (name: string, count: number, work: (count: number) => number) => void;
