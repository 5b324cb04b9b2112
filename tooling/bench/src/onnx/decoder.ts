/**
 * A quantized Llama as an ONNX decoder with a cache, as transformers.js and onnxruntime take it: the very
 * codes of the checkpoint in MatMulNBits, GroupQueryAttention with rotary positions, the embedding in
 * f16, logits of the last position.
 */

import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { type Checkpoint, decode, fromFloat32, isQuantized } from '@lowbit/core'
import { decoderConfig } from '@lowbit/model'
import { codesOf } from '../smollm2/codes.ts'
import { input, MICROSOFT, matMulNbits, model, node, output, tensor } from './graph.ts'

const POSITIONS = 2048
/** MatMulNBits may round activations to 8 bits. */
const INT8 = 4

export async function writeOnnxDecoder(
  checkpoint: Checkpoint,
  source: string,
  out: string,
  embeddingType: 'f16' | 'f32' = 'f16',
): Promise<void> {
  const config = decoderConfig(checkpoint.config)
  const { layers, heads, keyValueHeads, headSize, hidden, vocabulary } = config
  const parts: Buffer[] = []
  const add = (...some: Buffer[]) => parts.push(...some)
  const constant = (name: string, value: number) =>
    add(tensor(name, 'i64', [1], BigInt64Array.of(BigInt(value))))
  const linear = async (module: string, x: string, y: string) =>
    add(...matMulNbits(module, x, y, await codesOf(checkpoint, module), INT8))
  const gain = async (module: string) => {
    const { values } = await checkpoint.readVector(`${module}.weight`)
    add(tensor(module, 'f32', [values.length], values))
    return module
  }
  /** [x + residual, normed] */
  const addAndNormalize = async (x: string, residual: string, module: string, to: string) => {
    const [normed, sum] = [`${to}.normed`, `${to}.sum`]
    add(
      node(
        'SkipSimplifiedLayerNormalization',
        [x, residual, await gain(module)],
        [normed, '', '', sum],
        { epsilon: { float: config.epsilon } },
        MICROSOFT,
      ),
    )
    return [normed, sum]
  }

  const matrix = await checkpoint.readMatrix('model.embed_tokens')
  if (!isQuantized(matrix)) throw new Error('the embedding is not quantized')
  const embedding = decode(matrix)
  const shape = [vocabulary, hidden]
  add(
    embeddingType === 'f16'
      ? tensor('embedding', 'f16', shape, fromFloat32('f16', embedding))
      : tensor('embedding', 'f32', shape, embedding),
  )
  constant('one', 1)
  constant('last', -1)
  add(
    node('Gather', ['embedding', 'input_ids'], ['embedded']),
    node('Cast', ['embedded'], ['stream'], { to: 1 }),
    // GroupQueryAttention asks for the last position of each sequence and for the longest length.
    node('ReduceSum', ['attention_mask', 'one'], ['lengths'], { keepdims: 0 }),
    node('Sub', ['lengths', 'one'], ['positions64']),
    node('Cast', ['positions64'], ['positions'], { to: 6 }),
    node('Shape', ['attention_mask'], ['mask_shape']),
    node('Gather', ['mask_shape', 'one'], ['total64']),
    node('Cast', ['total64'], ['total'], { to: 6 }),
  )
  const half = headSize / 2
  const angles = Float64Array.from(
    { length: POSITIONS * half },
    (_, i) => Math.floor(i / half) * config.ropeTheta ** ((-2 * (i % half)) / headSize),
  )
  add(tensor('cos', 'f32', [POSITIONS, half], Float32Array.from(angles, Math.cos)))
  add(tensor('sin', 'f32', [POSITIONS, half], Float32Array.from(angles, Math.sin)))

  const block = (layer: number) => `model.layers.${layer}`
  add(
    node(
      'SimplifiedLayerNormalization',
      ['stream', await gain(`${block(0)}.input_layernorm`)],
      ['first'],
      { axis: -1, epsilon: { float: config.epsilon }, stash_type: 1 },
    ),
  )
  let [x, stream] = ['first', 'stream']
  for (let layer = 0; layer < layers; layer++) {
    const at = block(layer)
    const t = `t${layer}`
    await linear(`${at}.self_attn.q_proj`, x, `${t}.q`)
    await linear(`${at}.self_attn.k_proj`, x, `${t}.k`)
    await linear(`${at}.self_attn.v_proj`, x, `${t}.v`)
    const cache = ['key', 'value'].map((kind) => `${layer}.${kind}`)
    add(
      node(
        'GroupQueryAttention',
        [
          ...[`${t}.q`, `${t}.k`, `${t}.v`, ...cache.map((name) => `past_key_values.${name}`)],
          ...['positions', 'total', 'cos', 'sin'],
        ],
        [`${t}.attended`, ...cache.map((name) => `present.${name}`)],
        { num_heads: heads, kv_num_heads: keyValueHeads, do_rotary: 1, rotary_interleaved: 0 },
        MICROSOFT,
      ),
    )
    await linear(`${at}.self_attn.o_proj`, `${t}.attended`, `${t}.o`)
    ;[x, stream] = await addAndNormalize(
      `${t}.o`,
      stream,
      `${at}.post_attention_layernorm`,
      `${t}.middle`,
    )
    await linear(`${at}.mlp.gate_proj`, x, `${t}.gate`)
    await linear(`${at}.mlp.up_proj`, x, `${t}.up`)
    add(
      node('Sigmoid', [`${t}.gate`], [`${t}.sigmoid`]),
      node('Mul', [`${t}.gate`, `${t}.sigmoid`], [`${t}.silu`]),
      node('Mul', [`${t}.silu`, `${t}.up`], [`${t}.activated`]),
    )
    await linear(`${at}.mlp.down_proj`, `${t}.activated`, `${t}.down`)
    const next = layer + 1 < layers ? `${block(layer + 1)}.input_layernorm` : 'model.norm'
    ;[x, stream] = await addAndNormalize(`${t}.down`, stream, next, `${t}.end`)
  }
  add(node('Gather', [x, 'last'], ['last_hidden'], { axis: 1 }))
  const head = await codesOf(checkpoint, 'model.embed_tokens')
  add(...matMulNbits('head', 'last_hidden', 'logits', head, INT8))

  add(
    input('input_ids', 'i64', ['batch_size', 'sequence_length']),
    input('attention_mask', 'i64', ['batch_size', 'total_sequence_length']),
    output('logits', 'f32', ['batch_size', 1, vocabulary]),
  )
  for (let layer = 0; layer < layers; layer++) {
    for (const kind of ['key', 'value']) {
      const shape = (length: string) => ['batch_size', keyValueHeads, length, headSize]
      add(input(`past_key_values.${layer}.${kind}`, 'f32', shape('past_sequence_length')))
      add(output(`present.${layer}.${kind}`, 'f32', shape('total_sequence_length')))
    }
  }
  mkdirSync(path.join(out, 'onnx'), { recursive: true })
  writeFileSync(path.join(out, 'onnx/model_q4.onnx'), model(parts))
  for (const file of ['tokenizer.json', 'tokenizer_config.json', 'config.json']) {
    copyFileSync(path.join(source, file), path.join(out, file))
  }
}
