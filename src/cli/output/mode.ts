/** Output modes. Every command has table, wide, json, jsonl and yaml; some have more. */

export const OUTPUT_MODES = ['table', 'wide', 'json', 'jsonl', 'yaml', 'name', 'raw'] as const;
export type OutputMode = (typeof OUTPUT_MODES)[number];

/** Modes of every command. */
export const COMMON_MODES: readonly OutputMode[] = ['table', 'wide', 'json', 'jsonl', 'yaml'];
/** Lists of things with ids can print the ids alone. */
export const LIST_MODES: readonly OutputMode[] = [...COMMON_MODES, 'name'];
/** Data can be printed as it is. */
export const DATA_MODES: readonly OutputMode[] = [...COMMON_MODES, 'raw'];

/** Modes that print documents, also when there is nothing to show to people. */
export const isMachineMode = (mode: OutputMode): boolean => mode === 'json' || mode === 'jsonl' || mode === 'yaml';
