/** Generation behind a long context with caches of several types, the same 4-bit SmolLM2 for both engines. */

import { firstLine } from '../peers.ts'
import { compare, type Row } from '../report.ts'
import { type Running, startRunner } from '../runners/start.ts'
import type { Settings } from '../settings.ts'
import { prepare } from '../smollm2/prepare.ts'
import { inTurn } from './run.ts'

/** What is compared with what: lowbit's first one with all others of a row. */
const GROUPS: readonly { readonly what: string; readonly lowbit: string[]; llama: string[] }[] = [
  { what: 'full', lowbit: ['f16', 'f32'], llama: ['F16'] },
  { what: '8 bits', lowbit: ['int8'], llama: ['Q8_0'] },
  { what: '4 bits', lowbit: ['int4', 'kivi'], llama: ['Q4_0'] },
]
const LENGTHS = { quick: [1024], full: [4096, 8192] }

export async function caches(settings: Settings): Promise<Row[]> {
  const prepared = await prepare(settings)
  const rows: Row[] = []
  for (const tokens of LENGTHS[settings.quick ? 'quick' : 'full']) {
    rows.push(...(await behind(settings, prepared, tokens)))
  }
  return rows
}

async function behind(
  { threads, rounds }: Settings,
  { lowbit, gguf, whyNoGguf }: Awaited<ReturnType<typeof prepare>>,
  tokens: number,
): Promise<Row[]> {
  const title = `SmolLM2 4-bit, behind ${tokens} tokens`
  const rows: Row[] = []
  const running: Running[] = []
  const start = async (who: string, file: string, cache: string, model: string | undefined) => {
    try {
      if (!model) throw new Error(whyNoGguf ?? 'no model')
      running.push(await startRunner(who, file, { model, threads, behind: { tokens, cache } }))
    } catch (error) {
      rows.push({ what: title, who, unit: '', note: `skipped: ${firstLine(error)}` })
    }
  }
  try {
    for (const group of GROUPS) {
      for (const cache of group.lowbit)
        await start(lowbitName(cache), 'lowbit-behind', cache, lowbit)
      for (const cache of group.llama) await start(llamaName(cache), 'llama-behind', cache, gguf)
    }
    const { figures, failed } = await inTurn(running, 'behind', rounds)
    const full = figures.find(({ name }) => name === lowbitName('f16'))
    for (const { what, lowbit, llama } of GROUPS) {
      const names = [...lowbit.map(lowbitName), ...llama.map(llamaName)]
      const group = figures
        .filter(({ name }) => names.includes(name))
        .map(({ note: _, ...figure }) => ({
          ...figure,
          ...(full &&
            figure.name !== full.name &&
            figure.name.startsWith('lowbit') && {
              note: `${(figure.perCpuSecond / full.perCpuSecond).toFixed(2)}× its f16`,
            }),
        }))
      rows.push(...compare(`${title}, ${what}`, 'tokens', group, names[0]))
    }
    rows.push(...failed.map((row) => ({ ...row, what: title })))
  } finally {
    await Promise.all(running.map((runner) => runner.close().catch(() => {})))
  }
  return rows
}

const lowbitName = (cache: string): string => `lowbit, ${cache}`
const llamaName = (type: string): string => `llama.cpp, ${type}`
