/** The quantized checkpoint as a GGUF: Q4_0 for the blocks, Q8_0 for the tied embedding. */

import { closeSync, globSync, openSync, readSync, writeSync } from 'node:fs'
import path from 'node:path'
import { type Checkpoint, fromFloat32 } from '@lowbit/core'
import { decoderConfig } from '@lowbit/model'
import type { Nbits } from '../onnx/graph.ts'
import { codesOf } from '../smollm2/codes.ts'
import { readMetadata } from './read.ts'

const TYPE = { f32: 0, q4_0: 2, q8_0: 8 } as const
const ALIGNMENT = 32
/** Where all metadata of a GGUF of this size surely is. */
const HEAD_BYTES = 16 * 2 ** 20

interface Tensor {
  readonly name: string
  readonly type: keyof typeof TYPE
  /** Columns first. */
  readonly shape: readonly number[]
  readonly data: Uint8Array
}

export async function writeGguf(
  checkpoint: Checkpoint,
  smollm2: string,
  out: string,
): Promise<void> {
  const [original] = globSync(path.join(smollm2, '*.gguf'))
  if (!original) throw new Error(`${smollm2} has no GGUF to take the tokenizer from`)
  const metadata = readMetadata(head(original))
  const tensors = await tensorsOf(checkpoint)
  let offset = 0
  const infos = tensors.map(({ name, type, shape, data }) => {
    const info = Buffer.concat([
      text(name),
      u32(shape.length),
      ...shape.map(u64),
      u32(TYPE[type]),
      u64(offset),
    ])
    offset += aligned(data.byteLength)
    return info
  })
  const opening = [Buffer.from('GGUF'), u32(3), u64(tensors.length), u64(metadata.count)]
  const start = Buffer.concat([...opening, metadata.bytes, ...infos])
  const file = openSync(out, 'w')
  for (const part of [start, ...tensors.map(({ data }) => data)]) {
    writeSync(file, part)
    writeSync(file, Buffer.alloc(aligned(part.byteLength) - part.byteLength))
  }
  closeSync(file)
}

async function tensorsOf(checkpoint: Checkpoint): Promise<Tensor[]> {
  const { layers, heads, keyValueHeads } = decoderConfig(checkpoint.config)
  const tensors: Tensor[] = []
  const vector = async (name: string, module: string) => {
    const { values } = await checkpoint.readVector(`${module}.weight`)
    const data = new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
    tensors.push({ name: `${name}.weight`, type: 'f32', shape: [values.length], data })
  }
  const matrix = async (name: string, module: string, rotated?: number) => {
    const codes = await codesOf(checkpoint, module)
    const { rows, columns, bits } = codes
    const order = rotated ? interleavedHeads(rows, rotated) : undefined
    const type = bits === 4 ? 'q4_0' : 'q8_0'
    const data = blocks(codes, order)
    tensors.push({ name: `${name}.weight`, type, shape: [columns, rows], data })
  }
  await matrix('token_embd', 'model.embed_tokens')
  await vector('output_norm', 'model.norm')
  for (let layer = 0; layer < layers; layer++) {
    const [to, from] = [`blk.${layer}`, `model.layers.${layer}`]
    await vector(`${to}.attn_norm`, `${from}.input_layernorm`)
    await vector(`${to}.ffn_norm`, `${from}.post_attention_layernorm`)
    await matrix(`${to}.attn_q`, `${from}.self_attn.q_proj`, heads)
    await matrix(`${to}.attn_k`, `${from}.self_attn.k_proj`, keyValueHeads)
    await matrix(`${to}.attn_v`, `${from}.self_attn.v_proj`)
    await matrix(`${to}.attn_output`, `${from}.self_attn.o_proj`)
    await matrix(`${to}.ffn_gate`, `${from}.mlp.gate_proj`)
    await matrix(`${to}.ffn_up`, `${from}.mlp.up_proj`)
    await matrix(`${to}.ffn_down`, `${from}.mlp.down_proj`)
  }
  return tensors
}

/** llama.cpp turns neighbouring pairs, transformers the two halves of a head: row i comes from order[i]. */
function interleavedHeads(rows: number, heads: number): Uint32Array {
  const size = rows / heads
  return Uint32Array.from({ length: rows }, (_, row) => {
    const inside = row % size
    return row - inside + (inside % 2) * (size / 2) + (inside >> 1)
  })
}

/** Blocks of 32: an f16 scale, then 16 bytes of (i, i + 16) nibbles or 32 signed bytes. */
function blocks({ rows, columns, bits, codes, scales }: Nbits, order?: Uint32Array): Uint8Array {
  const groups = columns / 32
  const half = fromFloat32('f16', scales)
  const size = 2 + 4 * bits
  const out = Buffer.alloc(rows * groups * size)
  for (let row = 0; row < rows; row++) {
    for (let g = 0; g < groups; g++) {
      const block = (order?.[row] ?? row) * groups + g
      const to = (row * groups + g) * size
      out.writeUInt16LE(half[block], to)
      const from = block * 4 * bits
      for (let i = 0; i < 4 * bits; i++) {
        if (bits === 8) out[to + 2 + i] = codes[from + i] - 128
        else {
          const shift = (i & 1) * 4
          const low = (codes[from + (i >> 1)] >> shift) & 15
          out[to + 2 + i] = low | (((codes[from + 8 + (i >> 1)] >> shift) & 15) << 4)
        }
      }
    }
  }
  return out
}

function head(file: string): Buffer {
  const bytes = Buffer.alloc(HEAD_BYTES)
  const handle = openSync(file, 'r')
  readSync(handle, bytes, 0, HEAD_BYTES, 0)
  closeSync(handle)
  return bytes
}

const aligned = (bytes: number): number => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}

const text = (value: string): Buffer =>
  Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)])
