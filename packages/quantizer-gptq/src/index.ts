export { gptq, gptqOptions } from './gptq.ts'
