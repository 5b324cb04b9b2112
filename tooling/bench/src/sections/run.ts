/** SmolLM2-135M at 4 bits: generation and a long prompt, the same codes for everybody. */

import { readFile } from 'node:fs/promises'
import { openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import { loadDecoder, loadTokenizer, perplexity } from '@lowbit/model'
import { median } from '../measure.ts'
import { firstLine } from '../peers.ts'
import { compare, type Row } from '../report.ts'
import {
  LONG_PROMPT,
  NEW_TOKENS,
  type Result,
  type RunTask,
  SHORT_PROMPT,
  type Task,
} from '../runners/protocol.ts'
import { type Running, startRunner } from '../runners/start.ts'
import type { Settings } from '../settings.ts'
import { prepare } from '../smollm2/prepare.ts'

const TITLE: Record<RunTask, string> = {
  decode: `SmolLM2 4-bit, ${SHORT_PROMPT} → ${NEW_TOKENS} tokens`,
  prompt: `SmolLM2 4-bit, prompt of ${LONG_PROMPT}`,
}

export async function run(settings: Settings, tasks: readonly RunTask[]): Promise<Row[]> {
  const prepared = await prepare(settings)
  const { threads, rounds, quick } = settings
  const contestants = [
    { name: 'lowbit', file: 'lowbit', model: prepared.lowbit },
    { name: 'onnxruntime-node', file: 'onnxruntime', model: prepared.onnx },
    { name: 'transformers.js', file: 'transformers', model: prepared.onnx },
    { name: 'llama.cpp (node-llama-cpp)', file: 'llama', model: prepared.gguf },
    { name: 'wllama (Chromium)', file: 'wllama', model: prepared.gguf },
  ]
  const rows: Row[] = []
  const running: Running[] = []
  const skip = (who: string, why: string) =>
    rows.push({ what: 'SmolLM2 4-bit', who, unit: '', note: `skipped: ${why}` })
  try {
    for (const { name, file, model } of contestants) {
      if (!model) {
        skip(name, prepared.whyNoGguf ?? 'no model')
        continue
      }
      try {
        running.push(await startRunner(name, file, { model, threads }))
      } catch (error) {
        skip(name, firstLine(error))
      }
    }
    const cold = running.map(({ name, cold }) => ({
      name,
      perCpuSecond: 1 / cold.cpu,
      perSecond: 1 / cold.wall,
      note: `${cold.wall.toFixed(2)} s, ${cold.cpu.toFixed(2)} CPU s`,
    }))
    rows.push(...compare('SmolLM2 4-bit, cold to first token', 'starts', cold, 'lowbit'))
    for (const task of tasks) {
      const { figures, failed } = await inTurn(running, task, quick ? 2 : rounds)
      rows.push(...compare(TITLE[task], 'tokens', figures, 'lowbit'))
      rows.push(...failed.map((row) => ({ ...row, what: TITLE[task] })))
    }
  } finally {
    await Promise.all(running.map((runner) => runner.close().catch(() => {})))
  }
  rows.push(...(await quality(settings, prepared.lowbit)))
  return rows
}

/** A round is each runner once; the first round warms up and is not counted. */
export async function inTurn(
  running: readonly Running[],
  task: Task,
  rounds: number,
): Promise<{ figures: Parameters<typeof compare>[2]; failed: Omit<Row, 'what'>[] }> {
  const seen = new Map(running.map((runner) => [runner, [] as Result[]]))
  const failed: Omit<Row, 'what'>[] = []
  for (let round = 0; round <= rounds; round++) {
    for (const [runner, results] of seen) {
      // wllama takes so long that it is warm after its first token, and two rounds say enough.
      if (runner.name.startsWith('wllama') && round >= Math.min(2, rounds)) continue
      try {
        const result = await runner.do(task)
        if (round > 0 || runner.name.startsWith('wllama')) results.push(result)
      } catch (error) {
        seen.delete(runner)
        const note = `failed: ${firstLine(error)}`
        failed.push({ who: runner.name, unit: '', note })
      }
    }
  }
  const figures = [...seen].map(([{ name }, results]) => ({
    name,
    perCpuSecond: median(results.map(({ tokens, cpu }) => tokens / cpu)),
    perSecond: median(results.map(({ tokens, wall }) => tokens / wall)),
    ...(results[0].text && { note: `says ${results[0].text}` }),
  }))
  return { figures, failed }
}

/** What rounding activations to 8 bits costs: perplexity, and the divergence from f32 activations. */
async function quality({ text, threads, quick }: Settings, folder: string): Promise<Row[]> {
  const windows = quick ? 2 : 4
  const context = quick ? 512 : 2048
  const what = `SmolLM2 4-bit, perplexity of ${windows} windows of ${context}`
  if (!text) {
    return [{ what, who: 'lowbit', unit: '', note: 'skipped: needs --text FILE or LOWBIT_TEXT' }]
  }
  const checkpoint = await openFolder(nodeFolder(folder))
  const [exact, rounded] = [
    await cpu({ threads, strict: false, wide: true }),
    await cpu({ threads, strict: false, wide: true }),
  ]
  const tokens = (await loadTokenizer(checkpoint)).encode(await readFile(text, 'utf8'))
  const reference = await loadDecoder(checkpoint, exact, { activations: 'f32' })
  const decoder = await loadDecoder(checkpoint, rounded, { activations: 'int8' })
  const found = await perplexity(decoder, tokens, { context, windows, reference })
  await checkpoint.close()
  exact.dispose()
  rounded.dispose()
  const { perplexity: int8, referencePerplexity: f32 = Number.NaN, kl = Number.NaN } = found
  const change = ((int8 / f32 - 1) * 100).toFixed(3)
  const note = `${f32.toFixed(3)} with f32 activations, ${int8.toFixed(3)} with int8: ${change} %, KL ${kl.toExponential(2)}`
  return [{ what, who: 'lowbit', unit: '', note }]
}
