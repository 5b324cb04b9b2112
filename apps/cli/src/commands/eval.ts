/** lowbit eval */

import path from 'node:path'
import { type CacheScheme, LowbitError } from '@lowbit/core'
import { duration } from '@lowbit/inspection'
import {
  loadTokenizer,
  parseTask,
  perplexity,
  scoreTask,
  type TaskResult,
  type Tokenizer,
} from '@lowbit/model'
import { type Command, Option } from 'commander'
import {
  addCacheFlags,
  addCacheStepFlag,
  type CacheChoice,
  type CacheFlags,
  cacheFor,
  readCache,
} from '../flags/cache.ts'
import { ACTIVATIONS, type Activations, addDeviceFlags, type DeviceFlags } from '../flags/device.ts'
import { wholeNumber } from '../flags/values.ts'
import { fittedCache } from '../model-source/fit-cache.ts'
import { type LoadedModel, loadModel } from '../model-source/load-model.ts'
import { type OpenedModel, openModel } from '../model-source/open-model.ts'
import { demoText, readText } from '../model-source/texts.ts'
import type { Action } from '../program.ts'
import type { Session } from '../session.ts'
import { facts, table } from '../terminal/table.ts'

interface Flags extends DeviceFlags, CacheFlags {
  readonly text?: string
  readonly context?: number
  readonly windows?: number
  readonly reference?: string
  readonly tasks?: string[]
  readonly limit?: number
  readonly activations: Activations
}

/** Longer contexts are asked for, not given: attention over them takes its time. */
const USUAL_CONTEXT = 2048

export function define(command: Command, run: (action: Action) => Promise<void>): void {
  command
    .argument('<model>', 'a folder, a hub id (org/name), or demo')
    .option('--text <file>', 'plain text to measure perplexity on (demo and its kin: their own)')
    .option(
      '--context <n>',
      `tokens of a window (default: ${USUAL_CONTEXT}, or the model's context)`,
      wholeNumber(2, 10_000_000),
    )
    .option('--windows <n>', 'windows to score at most (default: all)', wholeNumber(1))
    .option('--reference <model>', 'also the mean KL divergence from this model')
    .option('--tasks <files...>', 'zero-shot tasks as JSON lines (PIQA, ARC, WinoGrande, LAMBADA)')
    .option('--limit <n>', 'items of each task at most', wholeNumber(1))
    .addOption(
      new Option(
        '--activations <type>',
        'what quantized matrices are multiplied with; int8 is faster',
      )
        .choices(ACTIVATIONS)
        .default('f32'),
    )
  addCacheFlags(command)
  addCacheStepFlag(command)
  addDeviceFlags(command)
  command.action((model: string, flags: Flags) =>
    run(async (session) => evaluate(model, await readCache(command, flags), flags, session)),
  )
}

async function evaluate(
  name: string,
  choice: CacheChoice,
  flags: Flags,
  session: Session,
): Promise<void> {
  const started = performance.now()
  const model = await openModel(name, session)
  const asked = await cacheFor(choice, model)
  const text = await chooseText(model, flags)
  const tasks = await readTasks(flags.tasks ?? [])
  const tokenizer = await loadTokenizer(model.checkpoint)
  const tokens = text === undefined ? undefined : tokenizer.encode(text)
  const kernels = await session.kernels(flags, false)
  const loaded = await loadModel(model, kernels, flags.activations, session)
  const running = { model, decoder: loaded.decoder, tokenizer }
  const cache = await fittedCache(asked, running, flags, session)
  const reference = flags.reference
    ? await loadReference(flags.reference, tokenizer, loaded, session)
    : undefined
  const context = flags.context ?? Math.min(USUAL_CONTEXT, loaded.decoder.config.context)
  const measured =
    tokens && (await measure(loaded, reference, { tokens, context, cache }, flags, session))
  const results: TaskResult[] = []
  for (const { task, items } of tasks) {
    const progress = session.progress(task)
    results.push(
      await scoreTask(loaded.decoder, tokenizer, task, items, {
        limit: flags.limit,
        signal: session.signal,
        onProgress: (done, total) => progress.update(done / total, `item ${done} of ${total}`),
      }).finally(progress.end),
    )
  }
  const seconds = (performance.now() - started) / 1000
  session.result({
    model: name,
    cache: cache?.name ?? 'full',
    ...(cache && { cacheOptions: cache.options }),
    ...measured,
    bitsPerWeight: loaded.bitsPerWeight,
    seconds,
    ...(results.length > 0 && { tasks: results }),
  })
  session.print(
    facts([
      ['bits per weight', loaded.bitsPerWeight.toFixed(4)],
      ...(cache ? [['keys and values', cache.name] as const] : []),
      ...(measured ? perplexityFacts(measured, flags) : []),
      ['time', duration(seconds)],
    ]),
  )
  if (results.length > 0) session.print(`\n${taskTable(results)}`)
}

async function chooseText(model: OpenedModel, flags: Flags): Promise<string | undefined> {
  if (flags.text) return readText(flags.text, 'text')
  const own = await demoText(model, 'evaluation')
  if (own !== undefined && !flags.tasks) return own
  if (flags.tasks) return undefined
  throw new LowbitError(
    'bad-option',
    'perplexity needs a text: give one with --text FILE (only demo and models made of it bring theirs)',
    { option: 'text' },
  )
}

async function readTasks(files: readonly string[]) {
  return Promise.all(
    files.map(async (file) => ({
      task: path.basename(file).replace(/\.jsonl?$/, ''),
      items: parseTask(await readText(file, 'tasks'), file),
    })),
  )
}

async function loadReference(
  name: string,
  tokenizer: Tokenizer,
  { decoder }: LoadedModel,
  session: Session,
): Promise<LoadedModel> {
  const model = await openModel(name, session)
  const own = await loadTokenizer(model.checkpoint)
  const probe = 'In the beginning, 1234 ways: “naïve” — ok?'
  if (own.encode(probe).join() !== tokenizer.encode(probe).join()) {
    throw new LowbitError('bad-option', `--reference ${name} has another tokenizer`, {
      option: 'reference',
    })
  }
  return loadModel(model, decoder.kernels, 'f32', session)
}

interface Scored {
  readonly tokens: readonly number[]
  readonly context: number
  readonly cache?: CacheScheme
}

async function measure(
  { decoder }: LoadedModel,
  reference: LoadedModel | undefined,
  { tokens, context, cache }: Scored,
  flags: Flags,
  session: Session,
) {
  if (context > decoder.config.context) {
    throw new LowbitError(
      'bad-option',
      `--context ${context} is more than the model's context of ${decoder.config.context}`,
      { option: 'context' },
    )
  }
  const progress = session.progress('perplexity')
  const started = performance.now()
  const measured = await perplexity(decoder, tokens, {
    context,
    windows: flags.windows,
    // A cache is held against the full one of the same model, if against nothing else.
    reference: reference?.decoder ?? (cache && decoder),
    ...(cache && { cache, step: flags.cacheStep }),
    signal: session.signal,
    onProgress: (done, total, soFar) =>
      progress.update(done / total, `window ${done} of ${total}, ${soFar.toFixed(3)} so far`),
  }).finally(progress.end)
  const passed = measured.windows * context
  return {
    ...measured,
    context,
    tokensPerSecond: passed / ((performance.now() - started) / 1000),
  }
}

type Measured = Awaited<ReturnType<typeof measure>>

function perplexityFacts(measured: Measured, flags: Flags): [string, string][] {
  const { perplexity: own, kl, referencePerplexity, tokens, windows, context } = measured
  return [
    ['perplexity', own.toFixed(4)],
    ...(kl === undefined || referencePerplexity === undefined
      ? []
      : ([
          [`perplexity of ${flags.reference ?? 'the full cache'}`, referencePerplexity.toFixed(4)],
          ['mean KL divergence', `${kl.toFixed(5)} nats`],
        ] as [string, string][])),
    ['scored', `${tokens} tokens in ${windows} windows of ${context}`],
    ['speed', `${Math.round(measured.tokensPerSecond)} tokens/s`],
  ]
}

function taskTable(results: readonly TaskResult[]): string {
  const share = (value: number | undefined): string =>
    value === undefined ? '' : `${(value * 100).toFixed(1)} %`
  return table(
    [
      'task',
      ...['items', 'accuracy', 'normalized'].map((title) => ({ title, align: 'right' as const })),
    ],
    results.map((result) => [
      result.task,
      String(result.items),
      share(result.accuracy),
      share(result.normalizedAccuracy),
    ]),
  )
}
