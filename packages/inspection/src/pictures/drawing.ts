/** The plot library, which whoever draws brings along: pictures are its options, so that they go into a file or a page. */

export interface Drawing {
  readonly Plot: typeof import('@observablehq/plot')
}
