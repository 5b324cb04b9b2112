export { palettizeOptions } from './options.ts'
export { palettize } from './palettize.ts'
