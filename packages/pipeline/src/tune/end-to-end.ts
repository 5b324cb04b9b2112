/** End-to-end tuning as a plugin. */

import { definePlugin, type Tuner, type TunerPlugin } from '@lowbit/core'
import * as z from 'zod'
import { type Tuned, type TuneModel, tuneModel } from './tune-model.ts'

/** A tuner of whole models, as the pipeline runs it after the last block. */
export type ModelTuner = Tuner<TuneModel, Tuned>
export type ModelTunerPlugin = TunerPlugin<TuneModel, Tuned>

export const endToEnd = definePlugin(
  {
    name: 'end-to-end',
    summary:
      'scales, norms and, if asked, codebooks by KL to the original’s next-token distributions',
    source: 'VPTQ, 2409.17066, section 4.1 (end-to-end fine-tuning); Adam, 1412.6980',
    options: z.object({
      steps: z.int().min(1).max(1_000_000).default(64).describe('windows that are learned from'),
      rate: z
        .number()
        .min(1e-6)
        .max(1)
        .default(0.003)
        .describe('largest change of a scale in a step'),
      tableRate: z
        .number()
        .min(0)
        .max(1)
        .default(0)
        .describe(
          'largest change of an entry of a table, in root mean squares of its table; 0: tables stay',
        ),
      length: z.int().min(2).max(1_000_000).default(512).describe('tokens of a window'),
    }),
  },
  (options): ModelTuner => ({
    kind: 'tuner',
    name: 'end-to-end',
    options,
    label: `${options.steps} windows of ${options.length} tokens`,
    tune: (model) => tuneModel({ ...model, ...options }),
  }),
)
