/**
 * Generation on WebGPU, side by side in headless Chromium: SmolLM2 in 4 bits, the same codes for lowbit,
 * transformers.js (onnxruntime-web) and wllama (ggml's WebGPU). `npm run bench:generation -- --smollm2 DIR --json`;
 * DIR is as tooling/bench takes it. Each has a page of its own; rounds are in turn.
 */

import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import type { Page } from 'playwright-core'
import { firstLine, folderOf, installPeers, PEERS } from '../bench/src/peers.ts'
import { promptTokens, SHORT_PROMPT } from '../bench/src/runners/protocol.ts'
import { prepare } from '../bench/src/smollm2/prepare.ts'
import type { GenerationCase } from './bench/generation.ts'
import { bundle } from './src/bundle.ts'
import { ADAPTERS, findChromium, launch, MISSING } from './src/chromium.ts'
import { serve } from './src/serve.ts'

const { values: flags } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    smollm2: { type: 'string', default: process.env.LOWBIT_SMOLLM2 },
    work: { type: 'string' },
    rounds: { type: 'string', default: '2' },
    tokens: { type: 'string', default: '16' },
    adapter: { type: 'string', default: 'default' },
    only: { type: 'string' },
  },
})
const WHO = ['lowbit', 'lowbit, int8', 'transformers.js', 'wllama'] as const
const WORDS = ['time', 'year', 'people', 'way', 'day', 'man', 'thing', 'woman', 'life', 'child']

const executable = findChromium()
const missing = executable ? !flags.smollm2 && 'needs --smollm2 DIR or LOWBIT_SMOLLM2' : MISSING
if (missing) {
  console.log(`skipped generation in a browser: ${missing}`)
  process.exit(0)
}
installPeers()
const place = mkdtempSync(path.join(tmpdir(), 'lowbit-generation-'))
const work = flags.work ?? path.join(place, 'work')
mkdirSync(work, { recursive: true })
const quiet = { threads: 1, rounds: 1, quick: true, gptqmodel: {} }
const prepared = await prepare({ ...quiet, smollm2: flags.smollm2, work }, 'f32')
const site = path.join(place, 'site')
await bundle(path.join(import.meta.dirname, 'bench'), site)
publish()
const server = await serve(site, true)
const browser = await launch(executable!, ADAPTERS[flags.adapter] ?? ADAPTERS.default)
const what: GenerationCase = {
  prompt: promptTokens(SHORT_PROMPT),
  text: Array.from({ length: SHORT_PROMPT }, (_, i) => ` ${WORDS[(i * 7) % WORDS.length]}`).join(
    '',
  ),
  tokens: Number(flags.tokens),
}
const pages = new Map<string, Page>()
const skipped = new Map<string, string>()
const seen = new Map<string, { rate: number; says: string }[]>()
try {
  for (const who of WHO) {
    if (flags.only && !flags.only.split(';').includes(who)) continue
    await attempt(who, async () => {
      const page = await browser.newPage()
      pages.set(who, page)
      await page.goto(server.url)
      await page.waitForFunction(() => 'prepareGeneration' in window)
      await page.evaluate((name) => window.prepareGeneration(name), who)
    })
  }
  // The first round warms up.
  for (let round = 0; round <= Number(flags.rounds); round++) {
    for (const [who, page] of pages) {
      await attempt(who, async () => {
        const { seconds, tokens, says } = await page.evaluate(
          (asked) => window.generation(asked),
          what,
        )
        if (!flags.json) console.error(`  ${who}: ${(tokens / seconds).toFixed(2)} tokens/s`)
        if (round > 0) seen.set(who, [...(seen.get(who) ?? []), { rate: tokens / seconds, says }])
      })
    }
  }
} finally {
  await browser.close()
  server.close()
  rmSync(place, { recursive: true })
}
report()

/** A contestant that fails is left out, with the reason. */
async function attempt(who: string, work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error) {
    skipped.set(who, firstLine(error))
    pages.delete(who)
    seen.delete(who)
  }
}

function publish(): void {
  const models = path.join(site, 'models')
  const folder = path.join(models, 'lowbit')
  mkdirSync(folder, { recursive: true })
  const files = readdirSync(prepared.lowbit)
  for (const file of files) symlinkSync(path.join(prepared.lowbit, file), path.join(folder, file))
  writeFileSync(path.join(folder, 'files.json'), JSON.stringify(files))
  symlinkSync(prepared.onnx, path.join(models, 'onnx'))
  if (prepared.gguf) symlinkSync(prepared.gguf, path.join(models, 'model.gguf'))
  symlinkSync(path.join(PEERS, 'node_modules'), path.join(site, 'peers'))
  const runtime = path.join(folderOf('onnxruntime-web'), 'dist')
  if (existsSync(runtime)) symlinkSync(runtime, path.join(site, 'ort'))
}

function report(): void {
  const rates = [...seen].map(([who, found]) => {
    const sorted = found.map(({ rate }) => rate).sort((a, b) => a - b)
    return { who, tokensPerSecond: sorted[sorted.length >> 1], says: found[0].says }
  })
  const ours = Math.max(
    ...rates.flatMap(({ who, tokensPerSecond }) =>
      who.startsWith('lowbit') ? tokensPerSecond : [],
    ),
  )
  const rows = rates.map((row) => ({
    ...row,
    ratio: Number.isFinite(ours) ? ours / row.tokensPerSecond : undefined,
  }))
  if (flags.json) {
    console.log(JSON.stringify({ rows, skipped: Object.fromEntries(skipped) }, null, 2))
    return
  }
  console.log(`SmolLM2 in 4 bits on WebGPU, ${SHORT_PROMPT} → ${flags.tokens} tokens`)
  for (const { who, tokensPerSecond, ratio, says } of rows) {
    const lead =
      who.startsWith('lowbit') || ratio === undefined ? '' : `lowbit is ${ratio.toFixed(2)}×`
    console.log(
      `  ${who.padEnd(16)} ${tokensPerSecond.toFixed(2).padStart(8)} tokens/s  ${lead.padEnd(18)} ${says}`,
    )
  }
  for (const [who, why] of skipped) console.log(`  skipped ${who}: ${why}`)
}
