/** lowbit inspect */

import {
  bytes,
  count,
  inspectCheckpoint,
  linearsOfBlocks,
  percent,
  readReport,
  type TensorReport,
  tensorBytes,
} from '@lowbit/inspection'
import { decoderConfig } from '@lowbit/model'
import type { Command } from 'commander'
import { type PlotFlags, plotRequest, writePlot } from '../inspection/plot/write-plot.ts'
import { openModel } from '../model-source/open-model.ts'
import type { Action } from '../program.ts'
import type { Session } from '../session.ts'
import { type Column, facts, table } from '../terminal/table.ts'

interface Flags extends PlotFlags {
  readonly all?: boolean
}

export function define(command: Command, run: (action: Action) => Promise<void>): void {
  command
    .argument('<model>', 'a folder, a hub id (org/name), or demo')
    .option('--all', 'a row for every tensor, not one for tensors that are alike')
    .option(
      '--plot <what>',
      'draw a picture instead: a module (or the end of its name), errors, or bits by layer',
    )
    .option('-o, --out <file>', 'the SVG file of --plot')
    .option('--reference <model>', 'show the palette of --plot over the weights of this model')
    .option('--overwrite', 'replace --out where it exists')
    .option('--json', 'print one JSON object on standard output and nothing else')
    .action((model: string, flags: Flags) => run((session) => inspect(model, flags, session)))
}

async function inspect(name: string, flags: Flags, session: Session): Promise<void> {
  const request = await plotRequest(flags)
  const model = await openModel(name, session)
  const { checkpoint } = model
  if (request) {
    const plot = await writePlot(model, request, session)
    await checkpoint.close()
    session.result({ model: name, plot, out: request.out })
    session.print(`  ${plot} drawn into ${request.out}\n`)
    return
  }
  const config = decoderConfig(checkpoint.config)
  const progress = session.progress('reading')
  const found = await inspectCheckpoint(
    checkpoint,
    new Set(linearsOfBlocks(checkpoint)),
    await readReport(model.folder),
    (done, total, module) => progress.update(done / total, module),
    session.signal,
  ).finally(progress.end)
  const total = await tensorBytes(model.folder)
  await checkpoint.close()
  session.result({
    model: name,
    format: checkpoint.format,
    architecture: config.architecture.name,
    layers: config.layers,
    context: config.context,
    vocabulary: config.vocabulary,
    parameters: found.parameters,
    bitsPerWeight: found.bitsPerWeight,
    bitsPerParameter: found.bitsPerParameter,
    bytes: total,
    parts: found.parts,
    tensors: found.tensors,
    sharedTables: found.sharedTables,
  })
  const { hidden, intermediate, heads, keyValueHeads } = config
  session.print(
    facts([
      ['format', checkpoint.format],
      ['architecture', `${config.architecture.name}, ${config.layers} layers of ${hidden}`],
      ['attention', `${heads} heads, ${keyValueHeads} for keys and values; MLP of ${intermediate}`],
      ['context', `${config.context} tokens, vocabulary of ${config.vocabulary}`],
      ['parameters', count(found.parameters)],
      ['bits per weight', `${found.bitsPerWeight.toFixed(4)} (linears of the blocks)`],
      ['bits per parameter', `${found.bitsPerParameter.toFixed(4)} (everything)`],
      ['size', bytes(total)],
    ]),
  )
  const sum = Object.values(found.parts).reduce((all, part) => all + part, 0)
  session.print(
    `\n${table(
      ['part', right('size'), right('share')],
      Object.entries(found.parts).map(([part, size]) => [part, bytes(size), percent(size / sum)]),
    )}`,
  )
  session.print(`\n${tensorTable(found.tensors, flags.all === true)}`)
  if (found.sharedTables.length > 0) {
    session.print(
      `\n${table(
        ['shared table', right('matrices'), right('size')],
        found.sharedTables.map((one) => [one.name, String(one.matrices.length), bytes(one.bytes)]),
      )}`,
    )
  }
}

const right = (title: string): Column => ({ title, align: 'right' })

/** Tensors that differ in the block's number alone share a row. */
function tensorTable(tensors: readonly TensorReport[], all: boolean): string {
  const rows = new Map<string, { report: TensorReport; name: string; times: number }>()
  for (const report of tensors) {
    const name = all ? report.module : report.module.replace(/\.\d+\./, '.*.')
    const { shape, description, bits } = report
    const key = all ? name : [name, shape.join('×'), description, bits.toFixed(4)].join(' ')
    const row = rows.get(key)
    if (row) row.times++
    else rows.set(key, { report, name, times: 1 })
  }
  return table(
    ['tensor', right('times'), right('shape'), 'stored as', right('bits'), right('size')],
    [...rows.values()].map(({ report, name, times }) => [
      name,
      times > 1 ? `${times} ×` : '',
      report.shape.join(' × '),
      report.description,
      report.bits.toFixed(3),
      bytes(report.bytes * times),
    ]),
  )
}
