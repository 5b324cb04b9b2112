/** Writes a Llama of random weights with a given number of blocks: TinyLlama's sizes, about 44 million weights a block. */

import { mkdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { floatToHalf } from '@lowbit/core'
import type { TensorEntry } from '@lowbit/safetensors'
import { writeSafetensorsFile } from '@lowbit/safetensors/node'

const HIDDEN = 2048
const INTERMEDIATE = 5632
const VOCABULARY = 32_000
const HEADS = 32
const KEY_VALUE_HEADS = 4
const HEAD = HIDDEN / HEADS

/** One stretch of random f16 bits, used again and again: the values do not matter, the sizes do. */
const noise = Uint16Array.from({ length: 1 << 16 }, (_, i) =>
  floatToHalf(((Math.imul(i, 2654435761) >>> 8) / 2 ** 24 - 0.5) * 0.08),
)

function tensor(name: string, shape: readonly number[], ones = false): TensorEntry {
  return {
    name,
    dtype: 'F16',
    shape,
    data: () => {
      const values = new Uint16Array(shape.reduce((product, size) => product * size, 1))
      if (ones) return new Uint8Array(values.fill(floatToHalf(1)).buffer)
      for (let at = 0; at < values.length; at += noise.length) {
        values.set(noise.subarray(0, Math.min(noise.length, values.length - at)), at)
      }
      return new Uint8Array(values.buffer)
    },
  }
}

export async function writeSynthetic(folder: string, blocks: number): Promise<number> {
  const entries = [
    tensor('model.embed_tokens.weight', [VOCABULARY, HIDDEN]),
    tensor('lm_head.weight', [VOCABULARY, HIDDEN]),
    tensor('model.norm.weight', [HIDDEN], true),
  ]
  for (let i = 0; i < blocks; i++) {
    const at = `model.layers.${i}`
    entries.push(
      tensor(`${at}.input_layernorm.weight`, [HIDDEN], true),
      tensor(`${at}.post_attention_layernorm.weight`, [HIDDEN], true),
      tensor(`${at}.self_attn.q_proj.weight`, [HIDDEN, HIDDEN]),
      tensor(`${at}.self_attn.k_proj.weight`, [KEY_VALUE_HEADS * HEAD, HIDDEN]),
      tensor(`${at}.self_attn.v_proj.weight`, [KEY_VALUE_HEADS * HEAD, HIDDEN]),
      tensor(`${at}.self_attn.o_proj.weight`, [HIDDEN, HIDDEN]),
      tensor(`${at}.mlp.gate_proj.weight`, [INTERMEDIATE, HIDDEN]),
      tensor(`${at}.mlp.up_proj.weight`, [INTERMEDIATE, HIDDEN]),
      tensor(`${at}.mlp.down_proj.weight`, [HIDDEN, INTERMEDIATE]),
    )
  }
  await mkdir(folder, { recursive: true })
  await writeFile(
    path.join(folder, 'config.json'),
    JSON.stringify({
      model_type: 'llama',
      torch_dtype: 'float16',
      hidden_size: HIDDEN,
      intermediate_size: INTERMEDIATE,
      num_hidden_layers: blocks,
      num_attention_heads: HEADS,
      num_key_value_heads: KEY_VALUE_HEADS,
      max_position_embeddings: 2048,
      vocab_size: VOCABULARY,
      rms_norm_eps: 1e-5,
      tie_word_embeddings: false,
    }),
  )
  await writeSafetensorsFile(path.join(folder, 'model.safetensors'), entries, { overwrite: true })
  return entries.reduce((sum, { shape }) => sum + shape.reduce((p, s) => p * s, 1), 0)
}
