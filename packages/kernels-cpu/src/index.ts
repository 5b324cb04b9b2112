export { type CpuKernels, type CpuOptions, cpu } from './cpu.ts'
