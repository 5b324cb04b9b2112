/** What a scheme has learnt of a model, as bytes: codebooks that need not be fitted anew. */

import type { CacheScheme, CacheShape } from '@lowbit/core'
import { LowbitError } from '@lowbit/core'
import {
  entryOf,
  type FileKind,
  openChecked,
  readPart,
  refusing,
  sortedJson,
  writeChecked,
} from './checked-file.ts'

const KIND: FileKind = {
  ...{ format: 'lowbit-cache-codebooks', version: '1' },
  title: 'file of a cache’s codebooks',
}

/** The model that they are fitted to, and the scheme. */
export interface CodebooksOrigin {
  /** `identity()` of the decoder. */
  readonly model: string
  readonly scheme: CacheScheme
  /** `cacheShape` of the decoder. */
  readonly shape: Omit<CacheShape, 'capacity'>
}

/** The bytes of a fitted scheme's codebooks. */
export async function saveCodebooks(origin: CodebooksOrigin): Promise<Uint8Array> {
  const { learnt, name } = origin.scheme
  if (!learnt) {
    throw new LowbitError('bad-option', `cache ${name} has no codebooks that could be saved`, {
      option: 'cache',
    })
  }
  const entries = [...learnt].map(([part, values]) => entryOf(part, 'F32', [values.length], values))
  return writeChecked(KIND, factsOf(origin), entries)
}

/** The scheme with the codebooks that were saved; refused where they are damaged, or another model's or scheme's. */
export async function loadCodebooks(
  bytes: Uint8Array,
  origin: CodebooksOrigin,
  file = 'the saved codebooks',
): Promise<CacheScheme> {
  const refuse = refusing(file)
  const { saved, facts } = await openChecked(KIND, bytes, file)
  const wanted = factsOf(origin)
  if (facts.model !== wanted.model || facts.shape !== wanted.shape) {
    refuse('has codebooks that were fitted to another model')
  }
  if (facts.scheme !== wanted.scheme || facts.options !== wanted.options) {
    refuse(
      `has codebooks of ${facts.scheme} ${facts.options}, not of ${wanted.scheme} ${wanted.options}`,
    )
  }
  const learnt = new Map<string, Float32Array>()
  for (const name of saved.tensors.keys()) {
    learnt.set(name, new Float32Array((await readPart(saved, name)).buffer))
  }
  const { recall } = origin.scheme
  return recall ? recall(learnt) : refuse(`cache ${origin.scheme.name} has no codebooks`)
}

/** Which tokens stay in full does not change what the others' codebooks are. */
function factsOf({ model, scheme, shape }: CodebooksOrigin): Record<string, string> {
  const { layers, keyValueHeads, headSize } = shape
  const {
    window: _,
    sinks: _sinks,
    slide: _slide,
    codebooks: _codebooks,
    ...options
  } = scheme.options
  return {
    ...{ model, scheme: scheme.name, options: sortedJson(options) },
    shape: JSON.stringify({ layers, keyValueHeads, headSize }),
  }
}
