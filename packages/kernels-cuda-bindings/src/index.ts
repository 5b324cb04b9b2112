export { type CudaKernels, type CudaOptions, cuda } from './cuda.ts'
