export { type CudaKernels, type CudaOptions, cuda } from './cuda.ts'
export { MISSING_GROUPS } from './missing.ts'
