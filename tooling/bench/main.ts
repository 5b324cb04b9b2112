/**
 * `npm run bench -- [--only gemm,gemv,run,prompt,start,palettes,…] [--threads N] [--quick] [--json]`: lowbit and
 * its peers side by side, threads equal, each measured in turn.
 */

import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { firstLine, installPeers } from './src/peers.ts'
import { type Row, table } from './src/report.ts'
import type { RunTask } from './src/runners/protocol.ts'
import { caches } from './src/sections/caches.ts'
import { codebooks } from './src/sections/codebooks.ts'
import { gemm } from './src/sections/gemm.ts'
import { gemv } from './src/sections/gemv.ts'
import { gptq } from './src/sections/gptq.ts'
import { palettes } from './src/sections/palettes.ts'
import { run } from './src/sections/run.ts'
import { start } from './src/sections/start.ts'
import { blocks, nearest } from './src/sections/vectors.ts'
import type { Settings } from './src/settings.ts'

const SECTIONS = [
  ...(['gemm', 'gemv', 'run', 'prompt', 'start', 'gptq'] as const),
  ...(['palettes', 'nearest', 'blocks', 'codebooks', 'caches'] as const),
] as const
type Section = (typeof SECTIONS)[number]
/** Those that install what npm has; the others take minutes, or Python: only when asked for. */
const DEFAULT: readonly Section[] = ['gemm', 'gemv', 'run', 'prompt', 'start']

const { env } = process
const { values: flags } = parseArgs({
  options: {
    only: { type: 'string' },
    threads: { type: 'string', default: '1' },
    rounds: { type: 'string' },
    quick: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    smollm2: { type: 'string', default: env.LOWBIT_SMOLLM2 },
    text: { type: 'string', default: env.LOWBIT_TEXT },
    calibration: { type: 'string', default: env.LOWBIT_CALIBRATION },
    windows: { type: 'string' },
    work: { type: 'string' },
    'gptqmodel-log': { type: 'string' },
    python: { type: 'string', default: env.LOWBIT_PYTHON },
    'vptq-log': { type: 'string' },
    'gptvq-log': { type: 'string' },
  },
})

const chosen = (flags.only?.split(',') ?? DEFAULT) as Section[]
const unknown = chosen.find((name) => !SECTIONS.includes(name))
if (unknown) fail(`--only: there is no ${unknown}; there are ${SECTIONS.join(', ')}`)
const threads = wholeNumber('threads', flags.threads)
const rounds = flags.rounds ? wholeNumber('rounds', flags.rounds) : flags.quick ? 3 : 5
const files = ['smollm2', 'text', 'calibration', 'gptqmodel-log', 'vptq-log', 'gptvq-log'] as const
for (const name of files) {
  const file = flags[name]
  if (file && !existsSync(file)) fail(`--${name}: there is no ${file}`)
}
if (flags.work) mkdirSync(flags.work, { recursive: true })
const settings: Settings = {
  threads,
  rounds,
  quick: flags.quick,
  smollm2: flags.smollm2,
  text: flags.text,
  calibration: flags.calibration,
  windows: flags.windows ? wholeNumber('windows', flags.windows) : undefined,
  work: flags.work ? path.resolve(flags.work) : mkdtempSync(path.join(tmpdir(), 'lowbit-bench-')),
  python: flags.python,
  vptqLog: flags['vptq-log'],
  gptvqLog: flags['gptvq-log'],
  gptqmodel: {
    log: flags['gptqmodel-log'],
    python: env.LOWBIT_GPTQMODEL_PYTHON,
    script: env.LOWBIT_GPTQMODEL_SCRIPT,
    data: env.LOWBIT_GPTQMODEL_DATA,
  },
}

const sections: Readonly<Record<Section, () => Promise<Row[]>>> = {
  gemm: () => gemm(settings),
  gemv: () => gemv(settings),
  run: () => run(settings, tasks()),
  prompt: () => run(settings, tasks()),
  start: () => start(settings),
  gptq: () => gptq(settings),
  palettes: () => palettes(settings),
  nearest: () => nearest(settings),
  blocks: () => blocks(settings),
  codebooks: () => codebooks(settings),
  caches: () => caches(settings),
}

const rows: Row[] = []
try {
  const needPeers = (name: Section) =>
    name === 'caches' || (DEFAULT.includes(name) && name !== 'start')
  if (chosen.some(needPeers)) installPeers()
  for (const name of SECTIONS) {
    if (!chosen.includes(name)) continue
    // Both are one section with one set of runners.
    if (name === 'prompt' && chosen.includes('run')) continue
    console.error(`› ${name}`)
    try {
      rows.push(...(await sections[name]()))
    } catch (error) {
      rows.push({ what: name, who: 'lowbit', unit: '', note: `skipped: ${firstLine(error)}` })
    }
  }
} finally {
  if (!flags.work) rmSync(settings.work, { recursive: true, force: true })
}

const machine = `${threads} thread${threads > 1 ? 's' : ''} of ${availableParallelism()} cores, ${process.arch}, Node ${process.versions.node}`
if (flags.json) console.log(JSON.stringify({ machine, threads, rounds, rows }))
else console.log(`\n${machine}; medians of ${rounds} rounds in turn\n\n${table(rows)}`)
process.exit(0)

function tasks(): RunTask[] {
  const wanted: RunTask[] = []
  if (chosen.includes('run')) wanted.push('decode')
  if (chosen.includes('prompt')) wanted.push('prompt')
  return wanted
}

function wholeNumber(name: string, value: string): number {
  const number = Number(value)
  if (!Number.isInteger(number) || number < 1) fail(`--${name} must be 1 or more, not ${value}`)
  return number
}

function fail(message: string): never {
  console.error(message)
  process.exit(2)
}
