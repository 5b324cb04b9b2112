export type { Choices } from './gpu/device.ts'
export type { ChoiceCache } from './measure.ts'
export type { Peak } from './peak.ts'
export { type WebGpuKernels, type WebGpuOptions, webgpu } from './webgpu.ts'
