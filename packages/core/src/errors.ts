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
    const where = [
      details.file && `file ${details.file}`,
      details.tensor && `tensor ${details.tensor}`,
      details.option && `option ${details.option}`,
    ].filter((part) => part && !message.includes(part.slice(part.indexOf(' ') + 1)))
    super(where.length > 0 ? `${message} (${where.join(', ')})` : message, { cause: details.cause })
    this.code = code
    this.file = details.file
    this.tensor = details.tensor
    this.option = details.option
  }
}
