/** Public face of `braidkv/testing`: clusters for tests of programs that use the SDK. */
export {
  type StartClusterOptions,
  startCluster,
  TestCluster,
  type TestPdMember,
  type TestStore,
} from './test-cluster.ts';
