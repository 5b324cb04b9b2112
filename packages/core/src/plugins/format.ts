import type { Matrix } from '../matrix/types.ts'

/** A tensor's bytes, as a container holds them. */
export interface RawTensor {
  /** The container's own name of the type, in safetensors' spelling: F16, I32, U8, … */
  readonly dtype: string
  readonly shape: readonly number[]
  readonly bytes: Uint8Array
}

/** The tensors of an opened container. */
export interface TensorSource {
  readonly location: string
  readonly names: readonly string[]
  info(name: string): { dtype: string; shape: readonly number[] } | undefined
  /** Throws with the tensor's name when it is missing. */
  read(name: string): Promise<RawTensor>
}

/** What a layout needs to know besides a module's own tensors. */
export interface FormatContext {
  readonly config: Readonly<Record<string, unknown>>
}

/**
 * One module's matrix as named tensors; names are relative to the module: "weight", "qweight". A name
 * that begins with a slash is the tensor's whole name: a table that several modules refer to.
 */
export type StoredModule = ReadonlyMap<string, RawTensor>

/** The name of a module's tensor in the checkpoint. */
export function tensorName(module: string, name: string): string {
  return name.startsWith('/') ? name.slice(1) : `${module}.${name}`
}

export type ModuleDescription = Readonly<Record<string, string | number | boolean>>

/**
 * A checkpoint layout: names and bytes of a module ↔ a Matrix. Containers, shards and files are not
 * its concern.
 */
export interface Format {
  readonly kind: 'format'
  readonly name: string
  readonly summary: string
  /** Engines that load it. */
  readonly engines: readonly string[]
  /** Whether a config names this layout. */
  detect(config: Readonly<Record<string, unknown>>): boolean
  /** Relative names of a module's tensors when `has` says that it is stored in this layout; undefined if not. */
  tensorsOf(has: (relative: string) => boolean): readonly string[] | undefined
  /**
   * For self-describing layouts: further tensors that those of `tensorsOf` name inside. All tensors of a
   * module but its bias are then the module's.
   */
  refersTo?(tensors: StoredModule): readonly string[]
  /** The module name under which tables lie that several modules refer to, if the layout has such. */
  readonly sharedModule?: string
  read(module: string, tensors: StoredModule, context: FormatContext): Matrix
  /** Why this layout can't store a matrix; undefined when it can. */
  refuses(matrix: Matrix): string | undefined
  write(module: string, matrix: Matrix): StoredModule
  /** What config.json has to know about one matrix: small, JSON, kept until all modules are written. */
  describe(matrix: Matrix): ModuleDescription
  /** The keys that config.json gets for these modules. */
  config(modules: ReadonlyMap<string, ModuleDescription>): Readonly<Record<string, unknown>>
}
