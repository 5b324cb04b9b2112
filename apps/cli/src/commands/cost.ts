/** lowbit cost */

import { readFile } from 'node:fs/promises'
import { LowbitError } from '@lowbit/core'
import {
  type Achieved,
  type Arithmetic,
  bytes,
  COST_DEVICES,
  calibratePasses,
  calibrateProducts,
  count,
  type DeviceFacts,
  duration,
  type Forecast,
  forecast,
  type ModelOnPaper,
  storedBytes,
} from '@lowbit/inspection'
import { loadDecoder } from '@lowbit/model'
import type { Recipe } from '@lowbit/pipeline'
import type { Command } from 'commander'
import * as z from 'zod'
import { asRecipeSays, modelOnPaper } from '../cost/paper.ts'
import { type MeasuredSpeed, measureModel, thisMachine } from '../cost/this-machine.ts'
import { addCacheFlags, type CacheFlags, cacheFor, readCache } from '../flags/cache.ts'
import { wholeNumber } from '../flags/values.ts'
import { fittedCache } from '../model-source/fit-cache.ts'
import { type OpenedModel, openModel } from '../model-source/open-model.ts'
import { DEFAULT_DEVICE, DEVICES } from '../plugins.ts'
import type { Action } from '../program.ts'
import { readRecipe } from '../quantization/recipe-file.ts'
import type { Session } from '../session.ts'
import { type Column, facts, table } from '../terminal/table.ts'

interface Flags extends CacheFlags {
  readonly device: string
  readonly context?: number[]
  readonly measure?: boolean
  readonly threads?: number
}

const ARITHMETICS: readonly (readonly [Arithmetic, 'f32' | 'int8', string])[] = [
  ['weights', 'f32', 'weights alone in few bits'],
  ['activations', 'int8', 'activations in 8 bits too'],
]

export function define(command: Command, run: (action: Action) => Promise<void>): void {
  const known = [...Object.keys(DEVICES), ...COST_DEVICES.map(({ name }) => name)].join(', ')
  command
    .argument('<model>', 'a folder, a hub id (org/name), or demo')
    .option(
      '--device <name>',
      `${known}, or a JSON file like those (${Object.keys(DEVICES).join(', ')}: this machine, measured)`,
      DEFAULT_DEVICE,
    )
    .option(
      '--context <n>',
      "tokens in the cache; may be given again (default: 1024, 4096, and the model's context)",
      (text: string, earlier: number[] = []) => [...earlier, wholeNumber(1)(text)],
    )
    .option('--measure', 'also run the model here, and print by how much the forecast is off')
    .option('--threads <n>', 'threads (default: all cores, at most 8)', wholeNumber(1, 256))
    .option('--json', 'print one JSON object on standard output and nothing else')
  addCacheFlags(command)
  command.addHelpText(
    'after',
    '\n--recipe also says what the weights would be in: its rules are taken, nothing is quantized.\n',
  )
  command.action((model: string, flags: Flags) =>
    run((session) => cost(command, model, flags, session)),
  )
}

interface Row {
  readonly arithmetic: Arithmetic
  readonly forecast: Forecast
  readonly achieved?: Achieved
  readonly measured?: MeasuredSpeed
}

async function cost(command: Command, name: string, flags: Flags, session: Session): Promise<void> {
  const choice = await readCache(command, flags)
  const recipe = flags.recipe ? await readRecipe(flags.recipe) : undefined
  const here = flags.device in DEVICES
  if (flags.measure && (!here || recipe)) {
    throw new LowbitError(
      'bad-option',
      recipe
        ? '--measure runs the model as it is; quantize it by the recipe first, then measure the result'
        : `--measure runs the model on this machine, which ${flags.device} is not`,
      { option: 'measure' },
    )
  }
  const model = await openModel(name, session)
  const scheme = await cacheFor(choice, model)
  const kernels = here ? await session.kernels(flags, false) : undefined
  const device = kernels ? await thisMachine(kernels) : await findDevice(flags.device)
  const stored = await modelOnPaper(model, scheme, session)
  const paper = await onPaper(model, stored, recipe, here, session)
  const contexts = contextsOf(flags, paper)
  const coded = paper.matrices.some((matrix) => matrix.coded)
  const rows: Row[] = []
  const passes = kernels && (await calibratePasses(kernels, paper))
  for (const [arithmetic, activations] of coded ? ARITHMETICS : ARITHMETICS.slice(0, 1)) {
    const progress = session.progress('measuring')
    const achieved = kernels &&
      passes && { ...passes, products: await calibrateProducts(kernels, paper, activations) }
    const decoder =
      flags.measure && kernels
        ? await loadDecoder(model.checkpoint, kernels, { activations, signal: session.signal })
        : undefined
    const cache = decoder && (await fittedCache(scheme, { model, decoder }, flags, session))
    for (const [i, context] of contexts.entries()) {
      session.signal.throwIfAborted()
      progress.update(i / contexts.length, `${context} tokens`)
      const measured = decoder && (await measureModel(decoder, context, cache))
      rows.push({
        arithmetic,
        forecast: forecast(paper, device, arithmetic, context, achieved),
        ...(achieved && { achieved }),
        ...(measured && { measured }),
      })
    }
    progress.end()
    decoder?.dispose()
  }
  await model.checkpoint.close()
  session.result({
    model: name,
    device,
    cache: paper.cache.name,
    weightBytes: storedBytes(paper),
    parameters: parametersOf(paper),
    forecasts: rows.map(jsonRow),
  })
  session.print(report(paper, device, rows))
}

async function onPaper(
  model: OpenedModel,
  stored: ModelOnPaper,
  recipe: Recipe | undefined,
  here: boolean,
  session: Session,
): Promise<ModelOnPaper> {
  if (!recipe) return stored
  const kernels = await session.kernels({ device: DEFAULT_DEVICE }, true)
  // What is timed must be no smaller than what it stands for.
  return asRecipeSays(
    stored,
    recipe,
    model,
    kernels,
    here ? { rows: 512, columns: 1024 } : undefined,
  )
}

const positive = z.number().positive()
const deviceSchema = z.object({
  name: z.string().default('device'),
  title: z.string().default('the device of the file'),
  memoryBytes: positive,
  bytesPerSecond: positive,
  busBytesPerSecond: positive,
  flops: z.object({ f32: positive, f16: positive, int8: positive }),
  source: z.string().default('the file'),
})

/** One of the list, or a file's. */
async function findDevice(name: string): Promise<DeviceFacts> {
  const known = COST_DEVICES.find((device) => device.name === name)
  if (known) return known
  const refuse = (why: string, cause?: unknown): never => {
    throw new LowbitError('bad-option', `--device ${name}: ${why}`, { option: 'device', cause })
  }
  if (!name.endsWith('.json')) {
    const names = [...Object.keys(DEVICES), ...COST_DEVICES.map((device) => device.name)]
    return refuse(`there is no such device; there are ${names.join(', ')}, and JSON files`)
  }
  let json: unknown
  try {
    json = JSON.parse(await readFile(name, 'utf8'))
  } catch (cause) {
    return refuse(`can't be read as JSON: ${(cause as Error).message}`, cause)
  }
  const parsed = deviceSchema.safeParse(json)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  return refuse(`${issue.path.join('.')}: ${issue.message}`)
}

function contextsOf({ context }: Flags, { config }: ModelOnPaper): number[] {
  const most = config.context - 1
  const tooLong = context?.find((one) => one > most)
  if (tooLong !== undefined) {
    throw new LowbitError(
      'bad-option',
      `--context ${tooLong} leaves no room for a token in the model's context of ${config.context}`,
      { option: 'context' },
    )
  }
  const usual = [1024, 4096, most].filter((one) => one <= most)
  return [...new Set(context ?? usual)].sort((a, b) => a - b)
}

const parametersOf = ({ matrices }: ModelOnPaper): number =>
  matrices.reduce((sum, { rows, columns }) => sum + rows * columns, 0)

/** Of the measured, by how much the predicted is more or less: −0.2 says that it is a fifth too slow. */
const off = (predicted: number, measured: number): number => predicted / measured - 1

function jsonRow({ arithmetic, forecast: f, achieved, measured }: Row) {
  return {
    arithmetic,
    ...f,
    ...(achieved && {
      achieved: { ...achieved, products: Object.fromEntries(achieved.products) },
    }),
    ...(measured && {
      measured: {
        ...measured,
        error: off(f.tokensPerSecond, measured.tokensPerSecond),
        prefillError: off(f.prefillTokensPerSecond, measured.prefillTokensPerSecond),
      },
    }),
  }
}

const right = (title: string): Column => ({ title, align: 'right' })
const flopRate = (value: number): string =>
  value < 1e12 ? `${(value / 1e9).toFixed(1)} GFLOP/s` : `${(value / 1e12).toFixed(1)} TFLOP/s`
const milliseconds = (seconds: number): string =>
  seconds < 1 ? `${(seconds * 1000).toPrecision(3)} ms` : duration(seconds)
const rate = (value: number): string => value.toFixed(value < 100 ? 1 : 0)
const signed = (share: number): string => `${share > 0 ? '+' : ''}${(share * 100).toFixed(0)} %`

function report(paper: ModelOnPaper, device: DeviceFacts, rows: readonly Row[]): string {
  const [{ forecast: first }] = rows
  const { flops } = device
  const expanded = first.generation.work.codedWeights
  const head = facts([
    ['device', device.title],
    [
      'its limits',
      `${bytes(device.bytesPerSecond)}/s of memory, ${flopRate(flops.f16)}, ${flopRate(flops.int8)} of 8 bits`,
    ],
    ['from', device.source],
    [
      'weights',
      `${bytes(storedBytes(paper))}, ${bytes(first.generation.work.weightBytes)} read a pass`,
    ],
    ['host → device', `${milliseconds(first.loadSeconds)}, once`],
    ['multiply-adds', `${count(first.generation.work.matrixMacs)} a token, attention beside`],
    ...(expanded > 0 ? [['expanded', `${count(expanded)} weights a pass`] as const] : []),
    ['cache', paper.cache.name],
  ])
  return `${head}${ARITHMETICS.map(([arithmetic, , title]) => {
    const own = rows.filter((row) => row.arithmetic === arithmetic)
    if (own.length === 0) return ''
    const [{ achieved }] = own
    return `\n  ${title}, ${achieved ? achievedWords(achieved) : 'at most'}:\n${forecastTable(own)}`
  }).join('')}`
}

/** "as kernels run here (bf16: 5.3 GB/s for a token, 50.1 GFLOP/s for many)" */
function achievedWords({ products }: Achieved): string {
  const each = [...products].map(([kind, { secondsPerByte, secondsPerMac }]) => {
    const rate = secondsPerByte > 0 ? `${bytes(1 / secondsPerByte)}/s for a token, ` : ''
    return `${kind}: ${rate}${flopRate(2 / secondsPerMac)} for many`
  })
  return `as kernels run here (${each.join('; ')})`
}

function forecastTable(rows: readonly Row[]): string {
  const measured = rows.some((row) => row.measured)
  return table(
    [
      ...['context', 'memory', 'cache', 'read a token', 'expanded'].map(right),
      ...['tokens/s', ...(measured ? ['measured', 'off'] : [])].map(right),
      'bound by',
      ...['prompt, tokens/s', ...(measured ? ['measured', 'off'] : [])].map(right),
    ],
    rows.map(({ forecast: f, measured: m }) => {
      const { work, bound } = f.generation
      return [
        String(f.context),
        `${bytes(f.memoryBytes)}${f.fits ? '' : ' (does not fit)'}`,
        bytes(f.cacheBytes),
        bytes(work.weightBytes + work.cacheBytes),
        count(work.codedNumbers),
        rate(f.tokensPerSecond),
        ...(m ? [rate(m.tokensPerSecond), signed(off(f.tokensPerSecond, m.tokensPerSecond))] : []),
        bound,
        rate(f.prefillTokensPerSecond),
        ...(m
          ? [
              rate(m.prefillTokensPerSecond),
              signed(off(f.prefillTokensPerSecond, m.prefillTokensPerSecond)),
            ]
          : []),
      ]
    }),
  )
}
