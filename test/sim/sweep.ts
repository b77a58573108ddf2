/** Placeholder replaced below. */
export const runSweep = (seed: number): Promise<unknown> => Promise.resolve({ seed });
