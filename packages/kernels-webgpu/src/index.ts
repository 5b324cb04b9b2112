export { type WebGpuKernels, type WebGpuOptions, webgpu } from './webgpu.ts'
