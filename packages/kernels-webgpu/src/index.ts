export { NOT_YET } from './missing.ts'
export { type WebGpuKernels, type WebGpuOptions, webgpu } from './webgpu.ts'
