/** Whatever was thrown → one line for people, one object for programs. */

export interface ErrorReport {
  readonly code: string
  readonly message: string
  readonly file?: string
  readonly tensor?: string
  readonly option?: string
}

interface Described extends Error {
  readonly code?: unknown
  readonly file?: unknown
  readonly tensor?: unknown
  readonly option?: unknown
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'does not exist',
  EACCES: 'no permission',
  EPERM: 'no permission',
  EISDIR: 'is a folder, not a file',
  ENOTDIR: 'a part of the path is not a folder',
  ENOSPC: 'the disk is full',
  EROFS: 'the file system is read-only',
}

export function describeError(error: unknown): ErrorReport {
  if (!(error instanceof Error)) return { code: 'failed', message: String(error) }
  const { code, file, tensor, option } = error as Described
  const place = {
    ...(typeof file === 'string' && { file }),
    ...(typeof tensor === 'string' && { tensor }),
    ...(typeof option === 'string' && { option }),
  }
  if (error.name === 'ZodError' && 'issues' in error) {
    const [issue] = error.issues as { path: PropertyKey[]; message: string }[]
    return { code: 'bad-value', message: `${issue.path.join('.')}: ${issue.message}`, ...place }
  }
  const path = 'path' in error && typeof error.path === 'string' ? error.path : undefined
  if (typeof code === 'string' && path !== undefined && 'syscall' in error) {
    return {
      code: 'file-error',
      message: `${path}: ${REASONS[code] ?? error.message}`,
      file: path,
    }
  }
  return { code: typeof code === 'string' ? code : 'failed', message: firstLine(error), ...place }
}

const firstLine = (error: Error): string =>
  (error.message || error.name).replace(/\s*\n\s*/g, ' ').trim()
