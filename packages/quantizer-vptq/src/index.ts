export { vptqOptions } from './options.ts'
export { vptq } from './vptq.ts'
