import type { Format } from '@lowbit/core'
import { dense } from './dense.ts'
import { gptq, gptqV2 } from './gptq.ts'
import { lowbit } from './lowbit.ts'

/** Every layout, those that a config names first; `dense` is what is left. */
export const FORMATS: readonly Format[] = [lowbit, gptq, gptqV2, dense]
