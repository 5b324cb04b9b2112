/** The contract of kernels without a test runner, in Node and in browsers: `@lowbit/testing/checks`. */

export { measureSpeed, type Speed } from './checks/speed.ts'
export {
  type CheckResult,
  type KernelCheck,
  type KernelChecks,
  type KernelContractOptions,
  type KernelGroup,
  kernelChecks,
  type MakeKernels,
  type RunChecksOptions,
  runKernelChecks,
} from './contracts/kernels/checks.ts'
