/** Public face of the engine room: two engines behind one contract (`env/engine.ts`), and the key layout of a store. */
export {
  BLOCK_CACHE_BYTES_DEFAULT,
  createLevelEngineFactory,
  THREAD_POOL_SIZE_RECOMMENDED,
  type LevelEngineConfig,
} from './level/level-engine.ts';
export {
  DISK_BEHAVIOR_DEFAULT,
  MemoryDisk,
  type CrashKind,
  type DelayRange,
  type DiskBehavior,
  type DiskImage,
  type WriteFault,
} from './memory/crash-model.ts';
export { createMemoryEngineFactory } from './memory/memory-engine.ts';
export * from './keyspace.ts';
