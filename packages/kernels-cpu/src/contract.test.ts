import { describeKernels } from '@lowbit/testing'
import { cpu } from './cpu.ts'

describeKernels('cpu, strict, 1 thread', () => cpu({ threads: 1 }))
describeKernels('cpu, strict, 2 threads', () => cpu({ threads: 2 }))
describeKernels('cpu, relaxed, 1 thread', () => cpu({ threads: 1, strict: false }))
describeKernels('cpu, relaxed, 2 threads', () => cpu({ threads: 2, strict: false }))
