export { gptvq } from './gptvq.ts'
export { gptvqOptions } from './options.ts'
