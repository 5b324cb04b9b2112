/** lowbit start: what `npm start` shows. */

import { mkdtemp, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { bytes, duration, tensorBytes } from '@lowbit/inspection'
import { type Decoder, generate, loadTokenizer, perplexity, type Tokenizer } from '@lowbit/model'
import { parseRecipe } from '@lowbit/pipeline'
import type { Command } from 'commander'
import { addDeviceFlags, type DeviceFlags } from '../flags/device.ts'
import { wholeNumber } from '../flags/values.ts'
import { loadModel } from '../model-source/load-model.ts'
import { DEMO, type OpenedModel, openModel } from '../model-source/open-model.ts'
import { demoText } from '../model-source/texts.ts'
import { prepareOutput } from '../output/output-folder.ts'
import { FORMATS } from '../plugins.ts'
import type { Action } from '../program.ts'
import { gatherCalibration } from '../quantization/calibration.ts'
import { runQuantization } from '../quantization/run.ts'
import type { Session } from '../session.ts'
import { paint } from '../terminal/style.ts'
import { type Column, table } from '../terminal/table.ts'

interface Flags extends DeviceFlags {
  readonly windows: number
  readonly samples: number
}

const BITS = 3
const METHODS = ['rtn', 'gptq']
const CONTEXT = 512
const PROMPT = 'And it came to pass'
const SAMPLE_TOKENS = 40

export function define(command: Command, run: (action: Action) => Promise<void>): void {
  command
    .option('--windows <n>', 'windows of the evaluation text', wholeNumber(1), 16)
    .option('--samples <n>', 'windows of the calibration text', wholeNumber(1), 16)
  addDeviceFlags(command)
  command.action((flags: Flags) => run((session) => tour(flags, session)))
}

interface Row {
  readonly name: string
  readonly bits: number
  readonly bytes: number
  readonly perplexity: number
  readonly kl: number
  readonly sample: string
  readonly seconds?: number
}

async function tour(flags: Flags, session: Session): Promise<void> {
  const started = performance.now()
  const workplace = await mkdtemp(path.join(os.tmpdir(), 'lowbit-start-'))
  try {
    const original = await openModel(DEMO, session)
    session.print(
      `\n  ${paint('bold', 'lowbit')} makes language models small. Here it takes a 5-million-parameter Llama\n  (trained on the King James Bible and Jane Austen) from 16 bits to ${BITS}.\n\n`,
    )
    const seconds = new Map<string, number>()
    for (const method of METHODS) {
      seconds.set(
        method,
        await quantizeTo(path.join(workplace, method), method, original, flags, session),
      )
    }
    const rows = await compare(original, workplace, seconds, flags, session)
    const total = (performance.now() - started) / 1000
    session.result({ bits: BITS, prompt: PROMPT, models: rows, seconds: total })
    session.print(report(rows, flags, total))
  } finally {
    await rm(workplace, { recursive: true, force: true })
  }
}

async function quantizeTo(
  out: string,
  method: string,
  model: OpenedModel,
  flags: Flags,
  session: Session,
): Promise<number> {
  const started = performance.now()
  const recipe = parseRecipe({
    rules: [{ method, bits: BITS }],
    calibration: { samples: flags.samples, length: CONTEXT },
  })
  const request = { recipe, lengthGiven: false }
  const calibration = await gatherCalibration(model, request, session)
  const output = await prepareOutput({ out, overwrite: false })
  const kernels = await session.kernels(flags, true)
  await runQuantization(
    {
      model,
      request,
      calibration,
      kernels,
      format: FORMATS.find(({ name }) => name === recipe.format) ?? FORMATS[0],
      output,
      overwrite: false,
      label: `quantizing, ${method}`,
    },
    session,
  )
  kernels.dispose()
  await output.publish()
  await output.release()
  return (performance.now() - started) / 1000
}

async function compare(
  original: OpenedModel,
  workplace: string,
  seconds: ReadonlyMap<string, number>,
  flags: Flags,
  session: Session,
): Promise<Row[]> {
  const kernels = await session.kernels(flags, false)
  const tokenizer = await loadTokenizer(original.checkpoint)
  const tokens = tokenizer.encode((await demoText(original, 'evaluation')) ?? '')
  const reference = await loadModel(original, kernels, 'f32', session)
  const rows: Row[] = []
  for (const method of METHODS) {
    const model = await openModel(path.join(workplace, method), session)
    const { decoder, bitsPerWeight } = await loadModel(model, kernels, 'f32', session)
    const progress = session.progress(`evaluating, ${method}`)
    const measured = await perplexity(decoder, tokens, {
      context: CONTEXT,
      windows: flags.windows,
      reference: reference.decoder,
      signal: session.signal,
      onProgress: (done, of) => progress.update(done / of, `window ${done} of ${of}`),
    }).finally(progress.end)
    if (rows.length === 0) {
      rows.push({
        name: 'original',
        bits: reference.bitsPerWeight,
        bytes: await tensorBytes(original.folder),
        perplexity: measured.referencePerplexity ?? Number.NaN,
        kl: 0,
        sample: await sampleOf(reference.decoder, tokenizer),
      })
    }
    rows.push({
      name: method,
      bits: bitsPerWeight,
      bytes: await tensorBytes(model.folder),
      perplexity: measured.perplexity,
      kl: measured.kl ?? Number.NaN,
      sample: await sampleOf(decoder, tokenizer),
      seconds: seconds.get(method),
    })
    decoder.dispose()
  }
  return rows
}

async function sampleOf(decoder: Decoder, tokenizer: Tokenizer): Promise<string> {
  const { tokens } = await generate(decoder, tokenizer.encode(PROMPT), {
    maxTokens: SAMPLE_TOKENS,
    stop: tokenizer.stop,
  })
  return tokenizer.decode(tokens).trimEnd()
}

const right = (title: string): Column => ({ title, align: 'right' })

const TITLES: Readonly<Record<string, string>> = {
  original: 'original, f16',
  rtn: `round to nearest, ${BITS} bits`,
  gptq: `GPTQ, ${BITS} bits`,
}

function report(rows: readonly Row[], flags: Flags, total: number): string {
  const figures = table(
    [
      '',
      right('bits/weight'),
      right('size'),
      right('perplexity'),
      right('KL, nats'),
      right('took'),
    ],
    rows.map((row) => [
      paint(row.name === 'gptq' ? 'bold' : 'reset', TITLES[row.name] ?? row.name),
      row.bits.toFixed(2),
      bytes(row.bytes),
      row.perplexity.toFixed(2),
      row.kl === 0 ? '0' : row.kl.toFixed(4),
      row.seconds === undefined ? '' : duration(row.seconds),
    ]),
  )
  const samples = rows
    .map(({ name, sample }) => `  ${paint('bold', TITLES[name] ?? name)}\n${wrap(PROMPT + sample)}`)
    .join('\n')
  return `${figures}
${paint('dim', `  ${flags.windows * CONTEXT} tokens of a text that the model has never seen; scales and zero points are counted.`)}

${samples}
  All of it took ${duration(total)}. What to do next:

    npm run lowbit -- --help                                       what there is
    npm run lowbit -- quantize demo --bits 2 --out demo-2bit       other bits, other methods
    npm run lowbit -- quantize FOLDER --calibration TEXT --out OUT a model of yours
    npm run studio                                                 the same as a web page
    npm run lowbit -- doctor                                       what this machine can do

`
}

/** Indented lines of a readable width. */
function wrap(text: string, width = 88): string {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(/\s+/)) {
    if (line.length + word.length + 1 > width) {
      lines.push(line)
      line = ''
    }
    line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line].map((one) => `    ${one}\n`).join('')
}
