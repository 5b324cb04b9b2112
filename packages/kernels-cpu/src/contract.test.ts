import { describeKernels } from '@lowbit/testing'
import { cpu } from './cpu.ts'

// The other two builds differ from these in nothing but the number of threads, which the tests beside
// each file vary.
describeKernels('cpu, strict, 2 threads', () => cpu({ threads: 2 }))
describeKernels('cpu, relaxed, 1 thread', () => cpu({ threads: 1, strict: false }))
