/** Where an error happened; every part that is known is named in the message too. */
export interface ErrorDetails {
  readonly file?: string
  readonly tensor?: string
  readonly option?: string
  readonly cause?: unknown
}

/**
 * An error for the person who made the mistake: what was wrong, where, and what to do.
 * `code` is stable and meant for programs ("bad-option", "bad-tensor", "out-of-memory", …).
 */
export class LowbitError extends Error {
  override readonly name = 'LowbitError'
  readonly code: string
  readonly file?: string
  readonly tensor?: string
  readonly option?: string

  constructor(code: string, message: string, details: ErrorDetails = {}) {
    const where = (['file', 'tensor', 'option'] as const)
      .filter((kind) => details[kind] && !mentions(message, details[kind]))
      .map((kind) => `${kind} ${details[kind]}`)
    super(where.length > 0 ? `${message} (${where.join(', ')})` : message, { cause: details.cause })
    this.code = code
    this.file = details.file
    this.tensor = details.tensor
    this.option = details.option
  }
}

/** Whether a message names something already, as a word of its own. */
function mentions(message: string, name: string): boolean {
  const at = message.indexOf(name)
  const isWord = (c: string | undefined): boolean => c !== undefined && /\w/.test(c)
  return at >= 0 && !isWord(message[at - 1]) && !isWord(message[at + name.length])
}
