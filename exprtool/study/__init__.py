"""The paper's user study (section 3.6, Figs. 6 and 9): made as one page, answered in browsers, summed up."""
