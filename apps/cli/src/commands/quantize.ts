/** lowbit quantize */

import { LowbitError, type QuantizerPlugin } from '@lowbit/core'
import { bytes, duration, percent, tensorBytes } from '@lowbit/inspection'
import { makeCache, refuseFormat, ruinedModules } from '@lowbit/pipeline'
import { type Command, Option } from 'commander'
import { addDeviceFlags, type DeviceFlags } from '../flags/device.ts'
import { addSchemaFlags } from '../flags/from-schema.ts'
import { parseBytes, parseNumber, wholeNumber } from '../flags/values.ts'
import { openModel } from '../model-source/open-model.ts'
import { prepareOutput } from '../output/output-folder.ts'
import { CACHE_SCHEMES, DEFAULT_METHOD, FORMATS, QUANTIZERS } from '../plugins.ts'
import type { Action } from '../program.ts'
import { allocate, type ChosenBits, tradeOffTable } from '../quantization/allocation.ts'
import { gatherCalibration } from '../quantization/calibration.ts'
import { type QuantizeFlags, readRequest } from '../quantization/request.ts'
import { runQuantization } from '../quantization/run.ts'
import { layerTable, meanError } from '../quantization/tables.ts'
import type { Session } from '../session.ts'
import { facts } from '../terminal/table.ts'

interface Flags extends QuantizeFlags, DeviceFlags {
  readonly out: string
  readonly overwrite?: boolean
  readonly fast?: boolean
  readonly maxShardSize?: number
}

export function define(
  command: Command,
  run: (action: Action) => Promise<void>,
  argv: readonly string[],
): void {
  const plugin = methodOf(argv)
  const names = QUANTIZERS.map(({ name }) => name)
  command
    .argument('<model>', 'a folder, a hub id (org/name), or demo')
    .requiredOption('-o, --out <dir>', 'folder that the new model is written to')
    .option('-m, --method <name>', `${names.join(', ')} (default: ${DEFAULT_METHOD})`)
    .option(
      '--match <glob>',
      'only modules whose names match, like "model.layers.*.mlp.*"; may be given again',
      (glob: string, earlier: string[] = []) => [...earlier, glob],
    )
    .option('--recipe <file>', 'YAML with rules for several methods, in place of --method')
    .option(
      '--target-bits <n>',
      'choose the bits of each matrix so that they come to this mean and lose least',
      parseNumber(),
    )
    .option('--calibration <file>', 'plain text to measure the model on (demo: its own)')
    .option('--samples <n>', 'windows of the text (default: 16)', wholeNumber(1, 100_000))
    .option(
      '--length <n>',
      "tokens of a window (default: 2048, or the model's context)",
      wholeNumber(1, 1_000_000),
    )
    .option(
      '--tune',
      'afterwards move scales, tables and norms toward the original’s next-token distributions',
    )
    .option(
      '--tune-steps <n>',
      'windows that tuning learns from (default: 64)',
      wholeNumber(1, 1_000_000),
    )
    .addOption(
      new Option('--format <name>', 'layout of the new model (default: lowbit)').choices(
        FORMATS.map(({ name }) => name).filter((name) => name !== 'dense'),
      ),
    )
    .option('--max-shard-size <size>', 'largest file, like 5GB (default)', parseBytes)
    .option('--overwrite', 'replace what is in --out, and work that another job left unfinished')
    .option('--fast', 'relaxed arithmetic: faster, but other machines may give other bytes')
    .option('--seed <n>', 'seed of everything random (default: 0)', wholeNumber(0, 2 ** 32 - 1))
  addSchemaFlags(command, `Options of ${plugin.name}: ${plugin.summary}`, plugin.options)
  addDeviceFlags(command)
  const others = names.filter((name) => name !== plugin.name)
  command.addHelpText(
    'after',
    `\nOther methods have options of their own: ${others
      .map((name) => `lowbit quantize --method ${name} --help`)
      .join(', ')}\n`,
  )
  command.action((model: string, flags: Flags) =>
    run((session) => quantize(command, model, flags, plugin, session)),
  )
}

const MORE_BITS = 'give it more bits, or smaller groups'

/** What helps against a matrix that loses too much, where a method has more to offer than bits. */
const REMEDIES: Readonly<Record<string, string>> = {
  palettize:
    'give it more bits, keep weights dense (--outliers 0.001), or leave --feedback and --importance as they are by default',
}

/** Flags depend on the method, so it is looked for before they are parsed. */
function methodOf(argv: readonly string[]): QuantizerPlugin {
  const at = argv.findIndex((word) => word === '--method' || word === '-m')
  const glued = argv.find((word) => word.startsWith('--method='))
  const name = at >= 0 ? argv[at + 1] : glued?.slice('--method='.length)
  if (name === undefined) return QUANTIZERS.find((plugin) => plugin.name === DEFAULT_METHOD)!
  const plugin = QUANTIZERS.find((one) => one.name === name)
  if (plugin) return plugin
  const known = QUANTIZERS.map((one) => one.name).join(', ')
  throw new LowbitError(
    'unknown-method',
    `there is no method ${JSON.stringify(name)}; there are ${known}`,
    { option: 'method' },
  )
}

async function quantize(
  command: Command,
  name: string,
  flags: Flags,
  plugin: QuantizerPlugin,
  session: Session,
): Promise<void> {
  const started = performance.now()
  let request = await readRequest(command, flags, plugin)
  const { recipe, targetBits } = request
  // Refused before any work is done.
  makeCache(recipe, CACHE_SCHEMES)
  const format = FORMATS.find((one) => one.name === recipe.format)
  if (!format) {
    const known = FORMATS.map((one) => one.name).join(', ')
    throw new LowbitError(
      'unknown-format',
      `there is no format ${JSON.stringify(recipe.format)}; there are ${known}`,
      { option: 'format' },
    )
  }
  const overwrite = flags.overwrite === true
  const model = await openModel(name, session)
  const output = await prepareOutput({ out: flags.out, overwrite, source: model.directory })
  if (model.checkpoint.format !== 'dense') {
    session.warn(`${name} is quantized already (${model.checkpoint.format}): its errors stay in`)
  }
  session.onStop('stopping; the same command goes on where this one stopped')
  try {
    const calibration = await gatherCalibration(model, request, session)
    const sourceBytes = await tensorBytes(model.folder)
    const kernels = await session.kernels(flags, flags.fast !== true)
    await refuseFormat(recipe, format, QUANTIZERS, kernels)
    let chosen: ChosenBits | undefined
    if (targetBits !== undefined) {
      const allocation = await allocate(
        { model, recipe, target: targetBits, calibration, kernels },
        session,
      )
      request = { ...request, recipe: allocation.recipe }
      chosen = allocation.chosen
      session.print(`\n${tradeOffTable(chosen)}\n`)
      await refuseFormat(request.recipe, format, QUANTIZERS, kernels)
    }
    const label = flags.recipe ? 'quantizing' : plugin.name
    const { report, layers, resumed } = await runQuantization(
      {
        model,
        request,
        calibration,
        kernels,
        format,
        output,
        overwrite,
        maxShardBytes: flags.maxShardSize,
        label,
      },
      session,
    )
    await model.checkpoint.close()
    await output.publish()
    const { user, system } = process.cpuUsage()
    const result = {
      model: name,
      out: output.location,
      method: [...new Set(layers.map(({ method }) => method))].join(', ') || 'none',
      format: format.name,
      bitsPerWeight: report.bitsPerWeight,
      seconds: (performance.now() - started) / 1000,
      cpuSeconds: (user + system) / 1e6,
      peakMemoryBytes: process.resourceUsage().maxRSS * 1024,
      bytes: report.bytes,
      sourceBytes,
      calibrationTokens: report.calibrationTokens,
      resumed: resumed > 0,
      layers: layers.map(({ module, method, label, bits, error, errorOf, ...rest }) => ({
        module,
        method,
        label,
        bits,
        error,
        errorOf,
        rows: rest.rows,
        columns: rest.columns,
        seconds: rest.seconds,
      })),
      ...(chosen && { allocation: chosen }),
    }
    session.result(result)
    for (const { module, method, error } of ruinedModules(layers)) {
      session.warn(
        `${module} loses ${percent(error)} of its output's power, which can ruin the model: ${REMEDIES[method] ?? MORE_BITS}`,
      )
    }
    const errors = new Set(layers.map(({ errorOf }) => errorOf))
    const errorOf = errors.size === 1 ? [...errors][0] : 'layer'
    session.print(`\n${layerTable(layers)}\n`)
    session.print(
      facts([
        [
          'bits per weight',
          `${report.bitsPerWeight.toFixed(4)} (counted, scales and zeros included)`,
        ],
        [
          'size',
          `${bytes(sourceBytes)} → ${bytes(report.bytes)}, ${percent(report.bytes / sourceBytes)}`,
        ],
        [`mean ${errorOf} error`, percent(meanError(layers))],
        ['time', `${duration(result.seconds)}, ${duration(result.cpuSeconds)} of CPU`],
        ['peak memory', bytes(result.peakMemoryBytes)],
        ['calibration', calibration ? `${report.calibrationTokens} tokens` : 'none needed'],
        ['written to', flags.out],
      ]),
    )
  } finally {
    await output.release()
  }
}
