/** The few things that reading and writing checkpoints need of a place that holds files: a directory, or OPFS. */

import type { Source } from '@lowbit/safetensors'

export interface Folder {
  /** For messages. */
  readonly location: string
  /** Names of the files in it; empty when it does not exist. */
  list(): Promise<string[]>
  /** Opens a file for random access. */
  source(name: string): Promise<Source>
  read(name: string): Promise<Uint8Array>
  /**
   * Writes a file so that its name appears only when it is whole and on disk; an existing file is
   * replaced in one step.
   */
  write(
    name: string,
    parts: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    signal?: AbortSignal,
  ): Promise<void>
  remove(name: string): Promise<void>
}
