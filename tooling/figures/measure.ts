/** One recipe on one model: bits, output error, perplexity, KL, CPU seconds. */

import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { FORMATS, openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import {
  calibrationWindows,
  type Decoder,
  loadDecoder,
  loadTokenizer,
  perplexity,
} from '@lowbit/model'
import { palettize } from '@lowbit/palettize'
import { parseRecipe, quantizeModel, type RecipeInput } from '@lowbit/pipeline'
import { gptq } from '@lowbit/quantizer-gptq'
import { gptvq, pq } from '@lowbit/quantizer-gptvq'
import { rtn } from '@lowbit/quantizer-rtn'
import { vptq } from '@lowbit/quantizer-vptq'

export interface Setup {
  readonly model: string
  readonly calibration: string
  readonly evaluation: string
  readonly context: number
  readonly samples: number
  readonly windows: number
  readonly threads: number
}

export interface Measured {
  readonly bits: number
  /** Mean over matrices of the lost share of the output's power. */
  readonly error: number
  readonly perplexity: number
  readonly kl: number
  readonly cpuSeconds: number
}

/** Opens the original once and measures recipes against it. */
export async function measurer(setup: Setup) {
  const running = await cpu({ threads: setup.threads, strict: false, wide: true })
  const source = await openFolder(nodeFolder(setup.model))
  const tokenizer = await loadTokenizer(source)
  const original = await loadDecoder(source, running)
  const text = tokenizer.encode(await readFile(setup.evaluation, 'utf8'))
  const calibration = calibrationWindows(
    tokenizer.encode(await readFile(setup.calibration, 'utf8')),
    setup.samples,
    setup.context,
  )
  const score = (decoder: Decoder) =>
    perplexity(decoder, text, {
      context: setup.context,
      windows: setup.windows,
      reference: original,
    })
  return {
    original: async () => (await score(original)).perplexity,
    async measure(recipe: RecipeInput): Promise<Measured> {
      const out = await mkdtemp(path.join(tmpdir(), 'lowbit-figures-'))
      const kernels = await cpu({ threads: setup.threads, wide: true })
      const before = process.cpuUsage()
      const report = await quantizeModel({
        checkpoint: source,
        kernels,
        recipe: parseRecipe(recipe),
        quantizers: [rtn, gptq, palettize, vptq, gptvq, pq],
        format: FORMATS.find(({ name }) => name === 'lowbit')!,
        calibration,
        folder: nodeFolder(out),
      })
      const { user, system } = process.cpuUsage(before)
      kernels.dispose()
      const checkpoint = await openFolder(nodeFolder(out))
      const decoder = await loadDecoder(checkpoint, running)
      const { perplexity: value, kl } = await score(decoder)
      decoder.dispose()
      await checkpoint.close()
      await rm(out, { recursive: true })
      return {
        bits: report.bitsPerWeight,
        error: report.modules.reduce((sum, { error }) => sum + error, 0) / report.modules.length,
        perplexity: value,
        kl: kl ?? 0,
        cpuSeconds: (user + system) / 1e6,
      }
    },
    async close() {
      await source.close()
      running.dispose()
    },
  }
}
