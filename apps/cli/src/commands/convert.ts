/** lowbit convert */

import { bytes, duration, tensorBytes } from '@lowbit/inspection'
import { convertModel } from '@lowbit/pipeline'
import { type Command, Option } from 'commander'
import { parseBytes } from '../flags/values.ts'
import { openModel } from '../model-source/open-model.ts'
import { prepareOutput } from '../output/output-folder.ts'
import { FORMATS } from '../plugins.ts'
import type { Action } from '../program.ts'
import type { Session } from '../session.ts'
import { facts } from '../terminal/table.ts'

const DENSE_TYPES = ['f16', 'bf16', 'f32'] as const

interface Flags {
  readonly to: string
  readonly out: string
  readonly dtype: (typeof DENSE_TYPES)[number]
  readonly overwrite?: boolean
  readonly maxShardSize?: number
}

export function define(command: Command, run: (action: Action) => Promise<void>): void {
  command
    .argument('<model>', 'a folder, a hub id (org/name), or demo')
    .addOption(
      new Option('--to <format>', 'layout of the new model')
        .choices(FORMATS.map(({ name }) => name))
        .makeOptionMandatory(),
    )
    .requiredOption('-o, --out <dir>', 'folder that the new model is written to')
    .addOption(
      new Option('--dtype <type>', 'what quantized weights become in the dense layout')
        .choices(DENSE_TYPES)
        .default('f16'),
    )
    .option('--max-shard-size <size>', 'largest file, like 5GB (default)', parseBytes)
    .option('--overwrite', 'replace what is in --out')
    .option('--json', 'print one JSON object on standard output and nothing else')
    .action((model: string, flags: Flags) => run((session) => convert(model, flags, session)))
}

async function convert(name: string, flags: Flags, session: Session): Promise<void> {
  const started = performance.now()
  const format = FORMATS.find((one) => one.name === flags.to)!
  const model = await openModel(name, session)
  const output = await prepareOutput({
    out: flags.out,
    overwrite: flags.overwrite === true,
    source: model.directory,
  })
  try {
    // Converting is quick and keeps no journal: it always begins anew.
    await output.clear()
    const progress = session.progress(`to ${format.name}`)
    const done = await convertModel({
      checkpoint: model.checkpoint,
      format,
      folder: output.folder,
      denseType: flags.dtype,
      maxShardBytes: flags.maxShardSize,
      signal: session.signal,
      onProgress: (count, total, module) => progress.update(count / total, module),
    }).finally(progress.end)
    session.signal.throwIfAborted()
    const sourceBytes = await tensorBytes(model.folder)
    await model.checkpoint.close()
    await output.publish()
    const seconds = (performance.now() - started) / 1000
    session.result({
      model: name,
      from: model.checkpoint.format,
      to: format.name,
      out: output.location,
      bytes: done.bytes,
      sourceBytes,
      seconds,
    })
    session.print(
      facts([
        ['format', `${model.checkpoint.format} → ${format.name}`],
        ['size', `${bytes(sourceBytes)} → ${bytes(done.bytes)}`],
        ['time', duration(seconds)],
        ['written to', flags.out],
      ]),
    )
  } catch (error) {
    await output.clear()
    throw error
  } finally {
    await output.release()
  }
}
