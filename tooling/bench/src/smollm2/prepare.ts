/**
 * One quantized SmolLM2 for everybody: 4 bits in symmetric groups of 32, the tied embedding in 8. The
 * same codes are written as a lowbit folder, as ONNX (MatMulNBits) and as GGUF (Q4_0, Q8_0).
 */

import { existsSync } from 'node:fs'
import path from 'node:path'
import type { Checkpoint } from '@lowbit/core'
import { FORMATS, openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import { parseRecipe, quantizeModel } from '@lowbit/pipeline'
import { rtn } from '@lowbit/quantizer-rtn'
import { writeGguf } from '../gguf/write.ts'
import { writeOnnxDecoder } from '../onnx/decoder.ts'
import { firstLine } from '../peers.ts'
import { type Settings, smollm2Folder } from '../settings.ts'

export interface Prepared {
  /** The lowbit folder. */
  readonly lowbit: string
  /** A folder as transformers.js takes it: onnx/model_q4.onnx, config.json, tokenizer.json. */
  readonly onnx: string
  /** Undefined where there is no GGUF to take the metadata from. */
  readonly gguf?: string
  readonly whyNoGguf?: string
}

/** The ONNX file's embedding in f32 is for adapters without f16. */
export async function prepare(
  settings: Settings,
  embedding: 'f16' | 'f32' = 'f16',
): Promise<Prepared> {
  const smollm2 = smollm2Folder(settings)
  const source = path.join(smollm2, 'hf')
  const lowbit = path.join(settings.work, 'smollm2-q4')
  const onnx = path.join(settings.work, `smollm2-q4-onnx${embedding === 'f32' ? '-f32' : ''}`)
  if (!existsSync(path.join(lowbit, 'config.json'))) await quantize(source, lowbit)
  const checkpoint = await openFolder(nodeFolder(lowbit))
  if (!existsSync(path.join(onnx, 'config.json'))) {
    await writeOnnxDecoder(checkpoint, source, onnx, embedding)
  }
  const gguf = path.join(settings.work, 'smollm2-q4_0.gguf')
  try {
    if (!existsSync(gguf)) await writeGguf(checkpoint, smollm2, gguf)
    return { lowbit, onnx, gguf }
  } catch (error) {
    return { lowbit, onnx, whyNoGguf: firstLine(error) }
  } finally {
    await checkpoint.close()
  }
}

async function quantize(source: string, out: string): Promise<void> {
  const kernels = await cpu({ wide: true })
  const checkpoint: Checkpoint = await openFolder(nodeFolder(source))
  const rule = { method: 'rtn', groupSize: 32, symmetric: true }
  await quantizeModel({
    checkpoint,
    kernels,
    recipe: parseRecipe({
      rules: [
        { ...rule, match: 'model.embed_tokens', bits: 8 },
        { ...rule, bits: 4 },
      ],
    }),
    quantizers: [rtn],
    format: FORMATS.find(({ name }) => name === 'lowbit')!,
    folder: nodeFolder(out),
  })
  await checkpoint.close()
  kernels.dispose()
}
