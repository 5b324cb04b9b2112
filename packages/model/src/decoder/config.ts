/** config.json → what a decoder needs, checked. */

import { type Architecture, LowbitError } from '@lowbit/core'
import * as z from 'zod'
import { findArchitecture } from '../architectures/index.ts'

const size = (most: number) => z.int().min(1).max(most)

const ropeScaling = z
  .looseObject({
    rope_type: z.string().optional(),
    type: z.string().optional(),
    factor: z.number().positive().optional(),
    low_freq_factor: z.number().positive().optional(),
    high_freq_factor: z.number().positive().optional(),
    original_max_position_embeddings: z.int().positive().optional(),
    rope_theta: z.number().positive().optional(),
  })
  .nullish()

const schema = z.object({
  hidden_size: size(1_000_000),
  intermediate_size: size(10_000_000),
  num_hidden_layers: size(10_000),
  num_attention_heads: size(10_000),
  num_key_value_heads: size(10_000).nullish(),
  head_dim: size(100_000).nullish(),
  max_position_embeddings: size(100_000_000),
  sliding_window: size(100_000_000).nullish(),
  use_sliding_window: z.boolean().nullish(),
  vocab_size: size(100_000_000),
  rms_norm_eps: z.number().positive().default(1e-6),
  rope_theta: z.number().positive().nullish(),
  rope_scaling: ropeScaling,
  rope_parameters: ropeScaling,
  tie_word_embeddings: z.boolean().default(false),
  hidden_act: z.string().default('silu'),
})

export interface RopeScaling {
  readonly type: 'linear' | 'llama3'
  readonly factor: number
  readonly lowFrequency: number
  readonly highFrequency: number
  readonly originalContext: number
}

export interface DecoderConfig {
  readonly architecture: Architecture
  readonly hidden: number
  readonly intermediate: number
  readonly layers: number
  readonly heads: number
  readonly keyValueHeads: number
  readonly headSize: number
  /** Positions that it was made for; of a model with a sliding window those of the window. */
  readonly context: number
  readonly vocabulary: number
  readonly epsilon: number
  readonly ropeTheta: number
  readonly ropeScaling?: RopeScaling
  readonly tied: boolean
  readonly activation: Architecture['activation']
}

const ACTIVATIONS: Record<string, Architecture['activation']> = {
  silu: 'silu',
  swish: 'silu',
  gelu: 'gelu_erf',
  gelu_new: 'gelu',
  gelu_pytorch_tanh: 'gelu',
  relu: 'relu',
}

export function decoderConfig(raw: Readonly<Record<string, unknown>>): DecoderConfig {
  const architecture = findArchitecture(raw)
  const renamed = { ...raw }
  for (const [key, own] of Object.entries(architecture.keys ?? {})) renamed[key] = raw[own]
  const parsed = schema.safeParse(renamed)
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    throw new LowbitError('bad-config', `${issue.path.join('.')}: ${issue.message}`, {
      file: 'config.json',
    })
  }
  const c = parsed.data
  const keyValueHeads = c.num_key_value_heads ?? c.num_attention_heads
  const headSize = c.head_dim ?? c.hidden_size / c.num_attention_heads
  const wrong = (what: string): never => {
    throw new LowbitError('bad-config', what, { file: 'config.json' })
  }
  if (!Number.isInteger(headSize) || headSize % 2 !== 0) {
    wrong(`hidden_size ${c.hidden_size} does not give ${c.num_attention_heads} heads an even size`)
  }
  if (c.num_attention_heads % keyValueHeads !== 0) {
    wrong(`${c.num_attention_heads} heads can't share ${keyValueHeads} key-value heads evenly`)
  }
  // Up to its window such a model attends to everything; past it our attention would be another.
  const window = (c.use_sliding_window !== false && c.sliding_window) || Number.POSITIVE_INFINITY
  const rope = c.rope_parameters ?? c.rope_scaling
  const activation = ACTIVATIONS[c.hidden_act]
  if (!activation) wrong(`hidden_act ${c.hidden_act} is not known`)
  return {
    architecture,
    hidden: c.hidden_size,
    intermediate: c.intermediate_size,
    layers: c.num_hidden_layers,
    heads: c.num_attention_heads,
    keyValueHeads,
    headSize,
    context: Math.min(c.max_position_embeddings, window),
    vocabulary: c.vocab_size,
    epsilon: c.rms_norm_eps,
    ropeTheta: c.rope_parameters?.rope_theta ?? c.rope_theta ?? 10_000,
    ropeScaling: parseRopeScaling(rope),
    tied: c.tie_word_embeddings,
    activation,
  }
}

function parseRopeScaling(rope: z.output<typeof ropeScaling>): RopeScaling | undefined {
  const type = rope?.rope_type ?? rope?.type
  if (!rope || !type || type === 'default') return undefined
  if (type !== 'linear' && type !== 'llama3') {
    throw new LowbitError('bad-config', `rope scaling ${type} is not supported (linear, llama3)`, {
      file: 'config.json',
    })
  }
  return {
    type,
    factor: rope.factor ?? 1,
    lowFrequency: rope.low_freq_factor ?? 1,
    highFrequency: rope.high_freq_factor ?? 4,
    originalContext: rope.original_max_position_embeddings ?? 8192,
  }
}
