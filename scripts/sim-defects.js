/** Planted defects; see below. */
export const DEFECTS = [];
