import type { AnyPlugin } from './define.ts'

/**
 * Moves the continuous parts of a quantized model (scales, tables, norms) toward the original's output; codes stay.
 * `Model` is what a pipeline shows of the model, `Moved` what it puts in place afterwards: a tuner reads the first,
 * returns the second and changes nothing itself, so that a job stopped in between goes on.
 *
 * What can be fitted to one linear's output alone, with the Hessian that its quantizer has anyway, is the quantizer's
 * own business (`updates` of gptvq and vptq, mode dkm of palettize): it fits codes and tables in turn.
 */
export interface Tuner<Model, Moved> {
  readonly kind: 'tuner'
  readonly name: string
  /** The options with every default filled in. */
  readonly options: Readonly<Record<string, unknown>>
  /** One line for tables: "64 steps". */
  readonly label: string
  tune(model: Model): Promise<Moved>
}

export type TunerPlugin<Model, Moved> = AnyPlugin<Tuner<Model, Moved>>
