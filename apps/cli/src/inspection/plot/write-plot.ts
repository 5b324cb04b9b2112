/** `lowbit inspect MODEL --plot WHAT --out FILE.svg`. */

import { stat, writeFile } from 'node:fs/promises'
import { LowbitError } from '@lowbit/core'
import {
  findModule,
  inspectCheckpoint,
  linearsOfBlocks,
  plotBits,
  plotErrors,
  plotMatrix,
  readReport,
} from '@lowbit/inspection'
import type { PlotOptions } from '@observablehq/plot'
import { type OpenedModel, openModel } from '../../model-source/open-model.ts'
import type { Session } from '../../session.ts'
import { loadDrawing, type SvgDrawing } from './library.ts'

export interface PlotRequest {
  /** `errors`, `bits`, or a module. */
  readonly plot: string
  /** The SVG file. */
  readonly out: string
  readonly reference?: string
  readonly overwrite: boolean
}

export interface PlotFlags {
  readonly plot?: string
  readonly out?: string
  readonly reference?: string
  readonly overwrite?: boolean
}

/** Checks the flags before a model is opened; undefined where no picture is asked for. */
export async function plotRequest(flags: PlotFlags): Promise<PlotRequest | undefined> {
  const { plot, out, reference, overwrite = false } = flags
  const refuse = (code: string, message: string, option: string): never => {
    throw new LowbitError(code, message, { option, ...(option === 'out' && { file: out }) })
  }
  if (plot === undefined) {
    const idle = (['out', 'reference', 'overwrite'] as const).find((name) => flags[name])
    if (idle) refuse('bad-option', `--${idle} belongs to --plot, which says what to draw`, idle)
    return undefined
  }
  if (out === undefined) return refuse('bad-option', '--plot needs --out FILE.svg', 'out')
  if (!/.\.svg$/i.test(out)) {
    refuse(
      'bad-option',
      `--out ${out}: pictures are SVG files, so the name must end in .svg`,
      'out',
    )
  }
  if (reference !== undefined && OF_THE_MODEL.has(plot)) {
    refuse('bad-option', `--reference is for pictures of one matrix, not for ${plot}`, 'reference')
  }
  const found = await stat(out).catch(() => undefined)
  if (found?.isDirectory()) refuse('exists', `--out ${out} is a folder; it must be a file`, 'out')
  if (found && !overwrite) {
    refuse('exists', `${out} already exists; choose another --out, or pass --overwrite`, 'out')
  }
  return { plot, out, reference, overwrite }
}

const OF_THE_MODEL: ReadonlySet<string> = new Set(['errors', 'bits'])

/** Draws and writes; gives what was drawn, by its full name. */
export async function writePlot(
  model: OpenedModel,
  request: PlotRequest,
  session: Session,
): Promise<string> {
  const drawing = await loadDrawing()
  const { what, options } = await picture(drawing, model, request, session)
  await writeFile(request.out, drawing.draw(options), { flag: request.overwrite ? 'w' : 'wx' })
  return what
}

interface Picture {
  readonly what: string
  readonly options: PlotOptions
}

async function picture(
  drawing: SvgDrawing,
  model: OpenedModel,
  { plot, reference }: PlotRequest,
  session: Session,
): Promise<Picture> {
  const { checkpoint, name } = model
  if (plot === 'errors') {
    const reported = await readReport(model.folder)
    return { what: plot, options: plotErrors(drawing, name, checkpoint, reported) }
  }
  if (plot === 'bits') {
    const linears = new Set(linearsOfBlocks(checkpoint))
    const progress = session.progress('reading')
    const found = await inspectCheckpoint(
      checkpoint,
      linears,
      undefined,
      (done, total, module) => progress.update(done / total, module),
      session.signal,
    ).finally(progress.end)
    return { what: plot, options: plotBits(drawing, name, checkpoint, found) }
  }
  const module = findModule(checkpoint.modules, plot)
  const matrix = await checkpoint.readMatrix(module)
  if (reference === undefined) {
    return { what: module, options: plotMatrix(drawing, { module, matrix }) }
  }
  const other = await openModel(reference, session)
  const original = await other.checkpoint.readMatrix(module)
  await other.checkpoint.close()
  const options = plotMatrix(drawing, {
    ...{ module, matrix },
    reference: { model: reference, matrix: original },
  })
  return { what: module, options }
}
