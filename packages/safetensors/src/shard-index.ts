import { quote, SafetensorsError } from './error.ts'
import { JsonError, JsonReader } from './json-reader.ts'

/** Which file of a model holds which tensor. */
export type WeightMap = ReadonlyMap<string, string>

/**
 * Parses the index of a model that is split over several files (`model.safetensors.index.json`):
 * `{"metadata": {…}, "weight_map": {"<tensor>": "<file name>"}}`. Other keys are passed over.
 *
 * @param index the text of the index, or the object that it was parsed into
 * @throws SafetensorsError `bad-index`, `duplicate-key` or `unsafe-file-name`.
 */
export function parseShardIndex(index: string | object, file?: string): WeightMap {
  const weights = new Map<string, string>()
  let found = false
  const fail = (detail: string, tensor?: string, cause?: unknown): SafetensorsError =>
    new SafetensorsError('bad-index', detail, { file, tensor, cause })
  try {
    const json = new JsonReader(typeof index === 'string' ? index : JSON.stringify(index))
    const outer = json.peek()
    if (outer !== 'object') throw fail(`the index is of type ${outer}; it must be an object.`)
    json.readObject((key) => {
      if (key !== 'weight_map') return json.skipValue()
      found = true
      const kind = json.peek()
      if (kind !== 'object') throw fail(`\`weight_map\` is of type ${kind}; it must be an object.`)
      json.readObject((tensor) => {
        const inner = json.peek()
        if (inner !== 'string') {
          throw fail(`its file name is of type ${inner}; it must be a string.`, tensor)
        }
        const name = json.readString()
        refuseUnsafe(name, tensor, file)
        weights.set(tensor, name)
      })
    })
    json.end()
  } catch (error) {
    if (error instanceof SafetensorsError) throw error
    if (error instanceof JsonError && error.problem === 'duplicate-key') {
      const detail = `in the index, ${error.message}; the index is ambiguous, write it again.`
      throw new SafetensorsError('duplicate-key', detail, { file, tensor: error.key, cause: error })
    }
    const message = error instanceof Error ? error.message : String(error)
    throw fail(`the index is not valid JSON: ${message}.`, undefined, error)
  }
  if (!found) throw fail('the index has no `weight_map`; this is not the index of a model.')
  if (weights.size === 0) throw fail('the `weight_map` of the index is empty.')
  return weights
}

/**
 * Whether a file name from an index stays within the model's folder, as a path on any system and
 * as a relative URL: segments joined by `/`, none of them empty, `.`, `..` or ending in a dot or a
 * space (Windows drops those), and no backslash, colon, percent sign, `?`, `#` or control
 * character.
 */
export function isSafeFileName(name: string): boolean {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is refused
  if (/[\\:%?#\u0000-\u001f\u007f]/.test(name)) return false
  return name.split('/').every((segment) => segment !== '' && !/[. ]$/.test(segment))
}

function refuseUnsafe(name: string, tensor: string, file: string | undefined): void {
  if (isSafeFileName(name)) return
  const detail = `the index places it in ${quote(name)}, which is not a plain file name within the model's folder; do not trust this index.`
  throw new SafetensorsError('unsafe-file-name', detail, { file, tensor })
}
