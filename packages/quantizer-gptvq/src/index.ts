export { gptvq } from './gptvq.ts'
export { gptvqOptions } from './options.ts'
export { pq, pqOptions } from './pq.ts'
