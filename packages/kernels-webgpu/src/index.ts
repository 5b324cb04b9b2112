export type { Choices } from './gpu/device.ts'
export type { ChoiceCache } from './measure.ts'
export { type WebGpuKernels, type WebGpuOptions, webgpu } from './webgpu.ts'
