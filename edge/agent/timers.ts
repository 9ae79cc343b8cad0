/** Timers of the control thread, as an interface, so that tests hold time in their hands. */
export interface Timers {
  /** runs `task` once, unless the answer is called before */
  after(ms: number, task: () => void): () => void;
  /** runs `task` again and again, until the answer is called */
  every(ms: number, task: () => void): () => void;
}

/** The runtime's timers. */
export const SYSTEM_TIMERS: Timers = {
  after: (ms, task) => {
    const timer = setTimeout(task, ms);
    return () => clearTimeout(timer);
  },
  every: (ms, task) => {
    const timer = setInterval(task, ms);
    return () => clearInterval(timer);
  },
};
